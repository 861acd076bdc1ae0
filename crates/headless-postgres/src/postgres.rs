//! A handle on a database.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use headless_abstractions::{Clock, Error, ErrorKind, Finding, Result, StoreId};
use sqlx::{
    Connection, Executor, PgPool, Row,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Migrate, Migration, MigrationState, Pooler, PostgresConfig, control, dead_letter,
    error::{NAME, fault},
    examine, inbox, membership, migrate, outbox, parked, pulse,
    session::Session,
    sql::statements,
    transport,
    wake::Waker,
};

statements! {
    /// What every part sends.
    Statements {
        begin: "session/begin",
        begin_call: "session/begin",
        begin_pooled: "session/begin_pooled",
        begin_call_pooled: "session/begin_call_pooled",
        commit: "session/commit",
        rollback: "session/rollback",
        ping: "session/ping",
        check_client: "session/check_client",
        identify: "store/identify",
    }
}

/// A connection that was idle for longer than this is tried before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// How long closing waits for connections that are in use.
const CLOSING: Duration = Duration::from_secs(2);

/// A handle on a PostgreSQL database: a [`Store`](headless_abstractions::Store) and a
/// [`Transport`](headless_abstractions::Transport) at once.
///
/// Cloning shares its connections. The connections of the provider are its own: [`client`](Self::client) gives the
/// application some of the same settings.
///
/// ```no_run
/// use headless_postgres::{Postgres, PostgresConfig, Schema};
///
/// # async fn example() -> headless_abstractions::Result<()> {
/// let config = PostgresConfig::new("postgres://app@localhost/app")?.with_schema(Schema::parse("billing")?);
/// let postgres = Postgres::connect_with(config).await?;
/// # let _ = postgres;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Postgres {
    pub(crate) shared: Arc<Shared>,
}

/// What the clones of a handle share.
pub(crate) struct Shared {
    pub(crate) config: PostgresConfig,
    pub(crate) id: StoreId,
    pub(crate) statements: Statements,
    pub(crate) outbox: outbox::Statements,
    pub(crate) pulse: pulse::Statements,
    pub(crate) membership: membership::Statements,
    pub(crate) desired: control::Statements,
    pub(crate) inbox: inbox::Statements,
    pub(crate) parked: parked::Statements,
    pub(crate) dead_letters: dead_letter::Statements,
    /// For transactions of the application. Never handed out: see `unit_of_work`.
    pub(crate) work: PgPool,
    /// For the provider's own calls.
    pub(crate) control: PgPool,
    /// For heartbeats, which no other call may keep waiting: a node that is not heard of is dead.
    beats: PgPool,
    client: PgPool,
    pub(crate) closed: CancellationToken,
    pub(crate) wake: Waker,
    pub(crate) transport: transport::State,
}

impl Postgres {
    /// Connects to the database at this URL with the default settings, and brings the schema up to date.
    ///
    /// # Errors
    /// `Invalid` for what is no such URL; else as [`connect_with`](Self::connect_with).
    pub async fn connect(url: &str) -> Result<Self> {
        let config =
            PostgresConfig::new(url).map_err(|error| error.with_operation("connect").with_provider(NAME))?;
        Self::connect_with(config).await
    }

    /// Connects with these settings.
    ///
    /// # Errors
    /// `Denied` for wrong credentials or missing rights, `NotFound` for a missing database or schema, `Conflict` for a
    /// schema of a newer version or one that was changed, `Unavailable`, `Timeout`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no connection behind, and the schema at a whole step.
    pub async fn connect_with(config: PostgresConfig) -> Result<Self> {
        let client = lazy_pool(&config, config.max_connections.get(), in_transaction(&config));
        Self::open(config, client).await
    }

    /// As [`connect_with`](Self::connect_with), to the database of a pool that the application has: with its connect
    /// options, on connections of the provider's own. `configure` may change the other settings.
    ///
    /// # Errors
    /// As [`connect_with`](Self::connect_with).
    pub async fn from_client(
        client: PgPool,
        configure: impl FnOnce(PostgresConfig) -> PostgresConfig,
    ) -> Result<Self> {
        let config = configure(PostgresConfig::from_options((*client.connect_options()).clone()));
        Self::open(config, client).await
    }

    /// Brings the schema up to date and returns the steps that were missing. Any number of processes at once are safe;
    /// one that is killed leaves a whole step. It waits for others who are at it for as long as they take.
    ///
    /// # Errors
    /// As [`connect_with`](Self::connect_with).
    pub async fn migrate(config: &PostgresConfig) -> Result<Vec<Migration>> {
        migrate::migrate(config)
            .await
            .map_err(|error| in_context(error, "migrate", config))
    }

    /// Says how far the schema has come, and changes nothing.
    ///
    /// # Errors
    /// As [`connect_with`](Self::connect_with).
    pub async fn check(config: &PostgresConfig) -> Result<MigrationState> {
        migrate::check(config)
            .await
            .map_err(|error| in_context(error, "check", config))
    }

    /// Looks at the server, the database and the schema of these settings as a service would meet them, and changes
    /// nothing: whether it can be reached and written to, its version, durability, room for connections and clock, the
    /// state of the schema and the rights of the user. Each finding says what to do where something should be done. What
    /// cannot be looked at because of an earlier finding is left out.
    ///
    /// `clock` is the one that the server's is compared with. Blocks for a few round trips, each within `call_timeout`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no connection behind.
    pub async fn examine(config: &PostgresConfig, clock: &dyn Clock) -> Vec<Finding> {
        examine::examine(config, clock).await
    }

    /// Removes the schema of these settings with everything that is in it, the application's own objects too, or does
    /// nothing where there is none: for tests. It waits for every transaction that uses something in it.
    ///
    /// # Errors
    /// As [`connect_with`](Self::connect_with).
    ///
    /// # Cancel safety
    /// All of it goes, or nothing.
    pub async fn remove(config: &PostgresConfig) -> Result<()> {
        migrate::remove(config)
            .await
            .map_err(|error| in_context(error, "remove", config))
    }

    async fn open(config: PostgresConfig, client: PgPool) -> Result<Self> {
        match config.migrate {
            Migrate::Auto => drop(Self::migrate(&config).await?),
            Migrate::Check => {
                let pending = Self::check(&config).await?.pending;
                if let Some(first) = pending.first() {
                    let missing = Error::new(
                        ErrorKind::NotFound,
                        format!(
                            "schema {} lacks {} migrations, the first is {}: run `headless migrate`",
                            config.schema,
                            pending.len(),
                            first.name
                        ),
                    );
                    return Err(in_context(missing, "connect", &config));
                }
            }
        }
        let options = ours(&config);
        let statements = statements(&config);
        let (units, calls) = (config.max_connections.get(), config.control_connections.get());
        let work = watched_pool(
            &config,
            options.clone(),
            &statements,
            pool_options(&config, units),
        );
        let control = watched_pool(
            &config,
            for_calls(&config, options.clone()),
            &statements,
            pool_options(&config, calls),
        );
        // It is kept for as long as it works: a heartbeat that has to connect first may come too late.
        let lasting = pool_options(&config, 1).max_lifetime(None).idle_timeout(None);
        let beats = watched_pool(&config, for_calls(&config, options.clone()), &statements, lasting);
        let wake = Waker::new(config.wake, &config.schema, options, control.clone());
        let id = in_time(&config, identify(&control, config.pooler, &statements))
            .await
            .map_err(|error| in_context(error, "connect", &config))?;
        Ok(Self {
            shared: Arc::new(Shared {
                id,
                statements,
                outbox: outbox::Statements::new(&config.schema),
                pulse: pulse::Statements::new(&config.schema),
                membership: membership::Statements::new(&config.schema),
                desired: control::Statements::new(&config.schema),
                inbox: inbox::Statements::new(&config.schema),
                parked: parked::Statements::new(&config.schema),
                dead_letters: dead_letter::Statements::new(&config.schema),
                transport: transport::State::new(&config),
                work,
                control,
                beats,
                client,
                closed: CancellationToken::new(),
                wake,
                config,
            }),
        })
    }

    /// A pool of the application's own on the same database: the client, for whatever this provider does not offer.
    #[must_use]
    pub fn client(&self) -> &PgPool {
        &self.shared.client
    }

    /// The settings of this handle.
    #[must_use]
    pub fn config(&self) -> &PostgresConfig {
        &self.shared.config
    }
}

impl Shared {
    /// Runs one call: within the call time-out, and not at all on a closed handle.
    pub(crate) async fn call<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let answer = tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(Error::new(ErrorKind::Closed, "this handle was closed")),
            answer = tokio::time::timeout(self.config.call_timeout, work) => answer.unwrap_or_else(|_elapsed| {
                Err(silent(&self.config).with_outcome_unknown())
            }),
        };
        answer.map_err(|error| error.with_operation(operation).with_provider(NAME))
    }

    /// Whether a statement stays prepared on its connection: not behind a pooler that changes what is behind it.
    pub(crate) fn keeps_statements(&self) -> bool {
        self.config.pooler == Pooler::None
    }

    /// A connection for one of the provider's own calls.
    pub(crate) async fn session(&self) -> Result<Session> {
        Session::open(&self.control, self.config.pooler, &self.statements).await
    }

    /// The connection of heartbeats.
    pub(crate) async fn beat_session(&self) -> Result<Session> {
        Session::open(&self.beats, self.config.pooler, &self.statements).await
    }

    /// Ends every call that is under way and every later one, and joins what runs in the background. A transaction of
    /// the application that is open stays so, and its connection is closed with its end. Repeating it is harmless.
    ///
    /// # Errors
    /// `Timeout` when something has not ended in time; the handle is closed all the same.
    pub(crate) async fn close(&self) -> Result<()> {
        self.closed.cancel();
        let wake = self.wake.close().await;
        let pools = async { tokio::join!(close(&self.work), close(&self.control), close(&self.beats)) };
        let _in_use = tokio::time::timeout(CLOSING, pools).await;
        wake.map_err(|error| error.with_operation("close").with_provider(NAME))
    }
}

/// Closes a pool. It waits for connections that are in use, which those of open transactions are, before it closes the
/// others: so these are closed first.
async fn close(pool: &PgPool) {
    while let Some(idle) = pool.try_acquire() {
        // One that does not take its good-bye is gone all the same.
        let _gone = idle.detach().close().await;
    }
    pool.close().await;
}

/// The options of the provider's own connections.
fn ours(config: &PostgresConfig) -> PgConnectOptions {
    match config.pooler {
        Pooler::None => in_transaction(config).options([
            // Generic plans over a long backlog would be compiled at each call otherwise: measured at 3.7 times the cost.
            ("jit", "off"),
            // What is decided under a lock must be seen by a statement that began after it was taken.
            ("default_transaction_isolation", "read committed"),
        ]),
        // It would refuse these. There, each call begins by saying its isolation.
        Pooler::Transaction => config.options(),
    }
}

/// These options for the provider's own calls: what a call has given up, the server gives up too.
fn for_calls(config: &PostgresConfig, options: PgConnectOptions) -> PgConnectOptions {
    match config.pooler {
        Pooler::None => options.options([("statement_timeout", statement_timeout(config))]),
        // There it is said by `begin_call_pooled`.
        Pooler::Transaction => options,
    }
}

/// In milliseconds, of which the server takes no more than this many; zero would be none.
fn statement_timeout(config: &PostgresConfig) -> i32 {
    i32::try_from(config.call_timeout.as_millis())
        .unwrap_or(i32::MAX)
        .max(1)
}

/// The client's options for connections with transactions, which a holder that does not go on must not keep open.
fn in_transaction(config: &PostgresConfig) -> PgConnectOptions {
    match config.pooler {
        Pooler::None => config.options().options([(
            "idle_in_transaction_session_timeout",
            config.idle_in_transaction_timeout.as_millis().max(1),
        )]),
        Pooler::Transaction => config.options(),
    }
}

fn lazy_pool(config: &PostgresConfig, most: u32, options: PgConnectOptions) -> PgPool {
    pool_options(config, most).connect_lazy_with(options)
}

/// As [`lazy_pool`], of connections on which the server notices, while a statement runs, that its client has gone: else it
/// would go on, and wait for locks, for nobody.
fn watched_pool(
    config: &PostgresConfig,
    options: PgConnectOptions,
    statements: &Statements,
    pool: PgPoolOptions,
) -> PgPool {
    if config.pooler == Pooler::Transaction {
        return pool.connect_lazy_with(options);
    }
    let check = statements.check_client.clone();
    pool.after_connect(move |conn, _| {
        let check = check.get();
        Box::pin(async move {
            match conn.execute(sqlx::raw_sql(check)).await {
                // Not every system of a server can tell.
                Ok(_) | Err(sqlx::Error::Database(_)) => Ok(()),
                Err(error) => Err(error),
            }
        })
    })
    .connect_lazy_with(options)
}

fn pool_options(config: &PostgresConfig, most: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(config.acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(|conn, meta| {
            Box::pin(async move {
                if meta.idle_for > TRUSTED_IDLE {
                    // One that does not answer is closed, and another one is made.
                    return Ok(conn.ping().await.is_ok());
                }
                Ok(true)
            })
        })
}

/// This work, which changes nothing, within the call time-out.
pub(crate) async fn in_time<T>(config: &PostgresConfig, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(config.call_timeout, work)
        .await
        .unwrap_or_else(|_elapsed| Err(silent(config)))
}

fn silent(config: &PostgresConfig) -> Error {
    let limit = config.call_timeout;
    Error::new(
        ErrorKind::Timeout,
        format!("the server did not answer within call_timeout ({limit:?})"),
    )
}

/// An error of connecting or migrating, with where that was.
fn in_context(error: Error, operation: &'static str, config: &PostgresConfig) -> Error {
    let resource = match error.resource() {
        Some(resource) => format!("{}, {resource}", config.endpoint()),
        None => config.endpoint(),
    };
    error
        .with_operation(operation)
        .with_provider(NAME)
        .with_resource(resource)
}

/// The statements that every part sends, as they are behind this pooler.
pub(crate) fn statements(config: &PostgresConfig) -> Statements {
    let mut statements = Statements::new(&config.schema);
    if config.pooler == Pooler::Transaction {
        statements.begin = statements.begin_pooled.clone();
        statements.begin_call = statements
            .begin_call_pooled
            .with("{statement_timeout}", statement_timeout(config));
    }
    statements
}

async fn identify(pool: &PgPool, pooler: Pooler, statements: &Statements) -> Result<StoreId> {
    let mut session = Session::open(pool, pooler, statements).await?;
    let row = sqlx::query(statements.identify.get())
        .persistent(false)
        .fetch_one(&mut *session)
        .await
        .map_err(fault)?;
    session.finish(statements).await?;
    let id: Uuid = row.try_get("id").map_err(fault)?;
    let database: i64 = row.try_get("database").map_err(fault)?;
    // A copy of the schema in another database of the server is another store.
    Ok(StoreId::from_bits(
        id.as_u128() ^ u128::from(database.unsigned_abs()),
    ))
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Postgres").field(&self.shared.config).finish()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
