//! The fixture: a database of its own for each case, on a server of this program's own behind a pooler.

use std::{
    num::{NonZero, NonZeroU32, NonZeroUsize},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{Error, ErrorKind, Result};
use headless_harness::{
    FaultProxy, Fixture, Namespace, StoreFixture, StoreNode, Unavailable,
    services::{PrivatePgbouncer, PrivatePostgres, is_required},
};
use headless_postgres::{Pooler, Postgres, PostgresConfig, PostgresTx, Schema};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

const CREATE: &str = include_str!("create.sql");
const CREATE_DATABASE: &str = include_str!("create_database.sql");
const DROP_DATABASE: &str = include_str!("drop_database.sql");
const ROWS: &str = include_str!("rows.sql");
const VERSION: &str = include_str!("version.sql");
const WRITE_ROW: &str = include_str!("write_row.sql");

/// Fewer sessions than the connections of a case: they are shared.
const SESSIONS: NonZero<u16> = NonZero::new(2).unwrap();

/// The server and the pooler of this program; they end with it.
struct Servers {
    server: PrivatePostgres,
    pooler: PrivatePgbouncer,
}

fn servers() -> Result<&'static Servers, Unavailable> {
    static SERVERS: OnceLock<Result<Servers, Unavailable>> = OnceLock::new();
    let started = SERVERS.get_or_init(|| {
        // Nothing here is about disks.
        let server = PrivatePostgres::builder().setting("fsync", "off").start()?;
        let pooler = PrivatePgbouncer::builder(&server.url())
            .pool_size(SESSIONS)
            .start()?;
        Ok(Servers { server, pooler })
    });
    match started {
        Err(Unavailable::Absent(why)) if is_required("postgres") => Err(Unavailable::Broken(why.clone())),
        started => started.as_ref().map_err(Clone::clone),
    }
}

/// The database of one case.
#[derive(Debug)]
pub(crate) struct PooledFixture {
    namespace: Namespace,
    /// Past the pooler.
    direct: String,
    /// Through the pooler.
    pooled: String,
    version: String,
    /// The ways of its nodes, which stay cut when they are.
    ways: Mutex<Vec<Arc<FaultProxy>>>,
}

impl PooledFixture {
    fn config(&self, url: &str) -> Result<PostgresConfig> {
        const FEW: NonZeroU32 = NonZeroU32::new(3).unwrap();
        const PAYLOAD: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();
        Ok(PostgresConfig::new(url)?
            .with_schema(Schema::parse(self.namespace.as_str())?)
            .with_pooler(Pooler::Transaction)
            .with_max_connections(FEW)
            .with_control_connections(FEW)
            .with_max_payload(PAYLOAD))
    }

    async fn connection(&self) -> Result<PgConnection> {
        PgConnection::connect(&self.direct).await.map_err(fault)
    }
}

/// Runs a statement about the database of this name, from another one.
async fn about(database: &Namespace, text: &str) -> Result<()> {
    let servers = servers().map_err(|why| Error::invalid(format!("{why:?}")))?;
    let mut conn = PgConnection::connect(&servers.server.url())
        .await
        .map_err(fault)?;
    sqlx::raw_sql(AssertSqlSafe(text.replace("{database}", database.as_str())))
        .execute(&mut conn)
        .await
        .map_err(fault)?;
    conn.close().await.map_err(fault)
}

#[async_trait]
impl Fixture for PooledFixture {
    const LEASE: Duration = Duration::from_millis(1_500);

    async fn open(namespace: Namespace) -> Result<Self, Unavailable> {
        // Starting them blocks, once.
        let servers = tokio::task::spawn_blocking(servers)
            .await
            .map_err(|error| Unavailable::Broken(error.to_string()))??;
        about(&namespace, CREATE_DATABASE).await?;
        let mut fixture = Self {
            direct: servers.server.url_for(namespace.as_str()),
            pooled: servers.pooler.url_for(namespace.as_str()),
            namespace,
            version: String::new(),
            ways: Mutex::default(),
        };
        Postgres::migrate(&fixture.config(&fixture.pooled)?).await?;
        let mut conn = fixture.connection().await?;
        fixture.version = sqlx::query_scalar(VERSION)
            .fetch_one(&mut conn)
            .await
            .map_err(fault)?;
        sqlx::raw_sql(CREATE).execute(&mut conn).await.map_err(fault)?;
        conn.close().await.map_err(fault)?;
        Ok(fixture)
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    async fn drop_namespace(self) -> Result<()> {
        about(&self.namespace, DROP_DATABASE).await
    }
}

#[async_trait]
impl StoreFixture for PooledFixture {
    type Store = Postgres;

    async fn node(&self) -> Result<StoreNode<Postgres>> {
        let way = Arc::new(FaultProxy::in_front_of(&self.pooled).map_err(no_way)?);
        let url = way.url_for(&self.pooled).map_err(no_way)?;
        self.ways
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(way.clone());
        let postgres = Postgres::connect_with(self.config(&url)?).await?;
        Ok(StoreNode::new(postgres, move || way.reset()))
    }

    async fn write_row(tx: &mut PostgresTx, key: &str, value: &str) -> Result<()> {
        sqlx::query(WRITE_ROW)
            .bind(key)
            .bind(value)
            .execute(tx.conn())
            .await
            .map_err(fault)?;
        Ok(())
    }

    async fn rows(&self) -> Result<Vec<(String, String)>> {
        let mut conn = self.connection().await?;
        let rows = sqlx::query(ROWS).fetch_all(&mut conn).await.map_err(fault)?;
        conn.close().await.map_err(fault)?;
        rows.iter()
            .map(|row| {
                Ok((
                    row.try_get("key").map_err(fault)?,
                    row.try_get("value").map_err(fault)?,
                ))
            })
            .collect()
    }
}

fn fault(error: sqlx::Error) -> Error {
    Error::new(ErrorKind::Internal, "the fixture's own statement failed").with_source(error)
}

fn no_way(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "no way to the server").with_source(error)
}
