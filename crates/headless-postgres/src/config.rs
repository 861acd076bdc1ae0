//! The settings of the provider.

use std::{fmt, num::NonZeroU32, num::NonZeroUsize, time::Duration};

use headless_abstractions::Result;
use sqlx::postgres::PgConnectOptions;

use crate::Schema;

mod bounds;
mod url;

pub(crate) use bounds::LARGEST_PAYLOAD;

/// Whether connecting brings the schema up to date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Migrate {
    /// It does; any number of processes at once are safe. Needs the right to create in the schema.
    #[default]
    Auto,
    /// It refuses to go on when a migration is missing: for users without the right to create.
    Check,
}

/// Whether processes tell each other that there is work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wake {
    /// By `NOTIFY`, coalesced and outside of callers' transactions; each handle listens on a connection of its own.
    #[default]
    On,
    /// They do not: the poll finds it. For poolers that share a session among transactions.
    Off,
}

/// What stands between this process and the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pooler {
    /// Nothing, or a pooler that keeps a session for each connection.
    #[default]
    None,
    /// A pooler that gives a server's session to each transaction, as PgBouncer does in transaction mode: every call is
    /// a transaction of its own then, statements are not kept prepared, and [`Wake::Off`] is required.
    Transaction,
}

/// The settings of the provider. Its `Debug` shows no secret.
#[derive(Clone)]
#[non_exhaustive]
pub struct PostgresConfig {
    pub(crate) options: PgConnectOptions,
    /// The schema that holds the provider's objects. Default `headless`.
    pub schema: Schema,
    /// The most connections for transactions of the application: units of work, and publishing. Default 10.
    pub max_connections: NonZeroU32,
    /// The most connections for the provider's own calls: claims, renewals, settling. They are apart, so that an
    /// application that uses up its connections does not lose its leases. Default 4.
    pub control_connections: NonZeroU32,
    /// How long a call waits for a free connection. Default 10 s.
    pub acquire_timeout: Duration,
    /// How long a call of the provider may take before it answers `Timeout`. Default 30 s.
    pub call_timeout: Duration,
    /// How long a call of the inbox waits for a row that another transaction holds, at most 24 days; other calls wait for
    /// locks up to `call_timeout`. Default 5 s.
    pub lock_timeout: Duration,
    /// How long a transaction may stay open with nothing to do before the server ends it, at most 24 days: a member that
    /// was stopped within one would hold its rows, and with them the keys of its messages, until it goes on. Behind
    /// [`Pooler::Transaction`] it is the pooler's to set. Default 5 min.
    pub idle_in_transaction_timeout: Duration,
    /// The largest payload in bytes that is published, at most 256 MiB; what is delivered is parked and buried up to that.
    /// Default 8 MiB.
    pub max_payload: NonZeroUsize,
    /// Whether connecting brings the schema up to date. Default [`Migrate::Auto`].
    pub migrate: Migrate,
    /// Whether processes tell each other that there is work. Default [`Wake::On`].
    pub wake: Wake,
    /// What stands between this process and the server. Default [`Pooler::None`].
    pub pooler: Pooler,
    /// How old a segment of the transport's log grows before the next one is begun, from 10 s to 366 days. Default 1 h.
    pub segment_age: Duration,
    /// How many messages a segment of the transport's log holds, about: from 1 000 to 1 000 000 000. Default 1 000 000.
    pub segment_messages: NonZeroU32,
    /// How long the transport keeps messages that every group has settled, for groups that begin with the oldest: at most
    /// seven times `segment_age`. They go with their segment. Default 0.
    pub keep_replay: Duration,
}

impl PostgresConfig {
    /// The settings for the database at this URL (`postgres://user:password@host:port/database?sslmode=…`).
    ///
    /// Its parameters may name every setting of this type, in words as `schema=billing`, `max_connections=20`,
    /// `call_timeout=10s` (with a unit: `ms`, `s`, `m` or `h`), `migrate=check`, `wake=off`, `pooler=transaction`; the
    /// others keep their defaults. What the URL leaves out of user, password, host and database the client takes from
    /// where PostgreSQL's own tools do.
    ///
    /// # Errors
    /// `Invalid` for what is no such URL, and for a parameter that is unknown or has a bad value, which it names. It
    /// shows nothing else of the URL.
    pub fn new(url: &str) -> Result<Self> {
        url::read(url)
    }

    pub(crate) fn from_options(options: PgConnectOptions) -> Self {
        const CONNECTIONS: NonZeroU32 = NonZeroU32::new(10).unwrap();
        const CONTROL: NonZeroU32 = NonZeroU32::new(4).unwrap();
        const PAYLOAD: NonZeroUsize = NonZeroUsize::new(8 * 1024 * 1024).unwrap();
        const SEGMENT: NonZeroU32 = NonZeroU32::new(1_000_000).unwrap();
        Self {
            options,
            schema: Schema::default(),
            max_connections: CONNECTIONS,
            control_connections: CONTROL,
            acquire_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(5),
            idle_in_transaction_timeout: Duration::from_mins(5),
            max_payload: PAYLOAD,
            migrate: Migrate::default(),
            wake: Wake::default(),
            pooler: Pooler::default(),
            segment_age: Duration::from_hours(1),
            segment_messages: SEGMENT,
            keep_replay: Duration::ZERO,
        }
    }

    /// In this schema.
    #[must_use]
    pub fn with_schema(mut self, schema: Schema) -> Self {
        self.schema = schema;
        self
    }

    /// With this many connections for transactions of the application.
    #[must_use]
    pub const fn with_max_connections(mut self, most: NonZeroU32) -> Self {
        self.max_connections = most;
        self
    }

    /// With this many connections for the provider's own calls.
    #[must_use]
    pub const fn with_control_connections(mut self, most: NonZeroU32) -> Self {
        self.control_connections = most;
        self
    }

    /// With this wait for a free connection.
    #[must_use]
    pub const fn with_acquire_timeout(mut self, time: Duration) -> Self {
        self.acquire_timeout = time;
        self
    }

    /// With this bound on each call.
    #[must_use]
    pub const fn with_call_timeout(mut self, time: Duration) -> Self {
        self.call_timeout = time;
        self
    }

    /// With this bound on waiting for a locked row.
    #[must_use]
    pub const fn with_lock_timeout(mut self, time: Duration) -> Self {
        self.lock_timeout = time;
        self
    }

    /// With this bound on transactions that have nothing to do.
    #[must_use]
    pub const fn with_idle_in_transaction_timeout(mut self, time: Duration) -> Self {
        self.idle_in_transaction_timeout = time;
        self
    }

    /// With this payload limit in bytes.
    #[must_use]
    pub const fn with_max_payload(mut self, bytes: NonZeroUsize) -> Self {
        self.max_payload = bytes;
        self
    }

    /// With or without migrations at connect.
    #[must_use]
    pub const fn with_migrate(mut self, migrate: Migrate) -> Self {
        self.migrate = migrate;
        self
    }

    /// With or without wake-ups.
    #[must_use]
    pub const fn with_wake(mut self, wake: Wake) -> Self {
        self.wake = wake;
        self
    }

    /// Behind this pooler; one that pools transactions turns wake-ups off too.
    #[must_use]
    pub const fn with_pooler(mut self, pooler: Pooler) -> Self {
        self.pooler = pooler;
        if matches!(pooler, Pooler::Transaction) {
            self.wake = Wake::Off;
        }
        self
    }

    /// With segments of the log that grow this old.
    #[must_use]
    pub const fn with_segment_age(mut self, age: Duration) -> Self {
        self.segment_age = age;
        self
    }

    /// With segments of the log that hold this many messages, about.
    #[must_use]
    pub const fn with_segment_messages(mut self, most: NonZeroU32) -> Self {
        self.segment_messages = most;
        self
    }

    /// With messages kept for so long once every group has settled them.
    #[must_use]
    pub const fn with_keep_replay(mut self, time: Duration) -> Self {
        self.keep_replay = time;
        self
    }

    /// Refuses settings that contradict each other, and bounds that bound nothing.
    pub(crate) fn validate(&self) -> Result<()> {
        bounds::check(self)
    }

    /// Where the server is, without secrets.
    pub(crate) fn endpoint(&self) -> String {
        let options = &self.options;
        let database = options.get_database().unwrap_or("");
        match options.get_socket() {
            Some(socket) => format!("postgres:///{database}?host={}", socket.display()),
            None => format!(
                "postgres://{}:{}/{database}",
                options.get_host(),
                options.get_port()
            ),
        }
    }

    /// The client's options for every connection to the server.
    pub(crate) fn options(&self) -> PgConnectOptions {
        let options = self.options.clone();
        match self.pooler {
            Pooler::None => options,
            // The session that a statement was prepared in is another transaction's soon; and such a pooler refuses the
            // start-up options that it cannot keep apart.
            Pooler::Transaction => options.statement_cache_capacity(0).extra_float_digits(None),
        }
    }
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("endpoint", &self.endpoint())
            .field("schema", &self.schema)
            .field("max_connections", &self.max_connections)
            .field("control_connections", &self.control_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("call_timeout", &self.call_timeout)
            .field("lock_timeout", &self.lock_timeout)
            .field("idle_in_transaction_timeout", &self.idle_in_transaction_timeout)
            .field("max_payload", &self.max_payload)
            .field("migrate", &self.migrate)
            .field("wake", &self.wake)
            .field("pooler", &self.pooler)
            .field("segment_age", &self.segment_age)
            .field("segment_messages", &self.segment_messages)
            .field("keep_replay", &self.keep_replay)
            .finish_non_exhaustive()
    }
}
