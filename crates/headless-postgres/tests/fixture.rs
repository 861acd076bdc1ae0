//! The fixture: what each case has of a server for itself, and nodes that a crash can cut off.

mod transport;

use std::{
    fmt,
    marker::PhantomData,
    num::{NonZeroU32, NonZeroUsize},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{Error, ErrorKind, Result};
use headless_harness::{FaultProxy, Fixture, Namespace, StoreFixture, StoreNode, Unavailable};
use headless_postgres::{Pooler, Postgres, PostgresConfig, PostgresTx, Schema};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use url::Url;

const CREATE: &str = include_str!("fixture/create.sql");
const ROWS: &str = include_str!("fixture/rows.sql");
const VERSION: &str = include_str!("fixture/version.sql");
const WRITE_ROW: &str = include_str!("fixture/write_row.sql");

/// A kind of server, and what it takes for a case to have a part of it.
#[async_trait]
pub(crate) trait Server: fmt::Debug + Send + Sync + 'static {
    /// The shortest lease that its nodes keep to.
    const LEASE: Duration;

    /// Makes the part for the case of this namespace. The provider's schema is not there yet.
    async fn place(namespace: &Namespace) -> Result<Place, Unavailable>;
}

/// Where a case is. Statements have `{schema}` for the provider's schema, and `{app}` for the application's.
#[derive(Debug)]
pub(crate) struct Place {
    /// The case's database.
    pub(crate) direct: Url,
    /// The same on the way of the nodes. The application's schema is where their statements find its table.
    pub(crate) nodes: Url,
    /// What is on that way.
    pub(crate) pooler: Pooler,
    /// Removes all of it, in a session at [`Place::remover`].
    pub(crate) remove: &'static str,
    /// From where it is removed.
    pub(crate) remover: Url,
}

/// The provider's schema of one case, and beside it one for the application's own table.
#[derive(Debug)]
pub(crate) struct CaseFixture<S> {
    namespace: Namespace,
    place: Place,
    version: String,
    /// The ways of the nodes to the server. They last as long as the case, whatever it keeps of a node.
    ways: Mutex<Vec<Arc<FaultProxy>>>,
    server: PhantomData<S>,
}

impl<S> CaseFixture<S> {
    /// The settings of a node that finds the server at `url`: few connections, since many cases share the server.
    fn config(&self, url: &str) -> Result<PostgresConfig> {
        const FEW: NonZeroU32 = NonZeroU32::new(3).unwrap();
        // Small enough that a case can send more than this without filling the machine.
        const PAYLOAD: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();
        Ok(PostgresConfig::new(url)?
            .with_schema(Schema::parse(self.namespace.as_str())?)
            .with_pooler(self.place.pooler)
            .with_max_connections(FEW)
            .with_control_connections(FEW)
            .with_max_payload(PAYLOAD))
    }

    /// This text of SQL with the schemas' names put in.
    fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        sql(text, &self.namespace)
    }

    async fn connection(&self) -> Result<PgConnection> {
        connection(&self.place.direct).await
    }

    /// Another process, and its way to the server: a crash cuts it.
    async fn process(&self) -> Result<(Postgres, Arc<FaultProxy>)> {
        let nodes = self.place.nodes.as_str();
        let way = Arc::new(FaultProxy::in_front_of(nodes).map_err(no_way)?);
        let url = way.url_for(nodes).map_err(no_way)?;
        self.ways
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(way.clone());
        Ok((Postgres::connect_with(self.config(&url)?).await?, way))
    }
}

#[async_trait]
impl<S: Server> Fixture for CaseFixture<S> {
    const LEASE: Duration = S::LEASE;

    async fn open(namespace: Namespace) -> Result<Self, Unavailable> {
        let mut fixture = Self {
            place: S::place(&namespace).await?,
            namespace,
            version: String::new(),
            ways: Mutex::default(),
            server: PhantomData,
        };
        Postgres::migrate(&fixture.config(fixture.place.nodes.as_str())?).await?;
        let mut conn = fixture.connection().await?;
        fixture.version = sqlx::query_scalar(VERSION)
            .fetch_one(&mut conn)
            .await
            .map_err(fault)?;
        sqlx::raw_sql(fixture.sql(CREATE))
            .execute(&mut conn)
            .await
            .map_err(fault)?;
        conn.close().await.map_err(fault)?;
        Ok(fixture)
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    async fn drop_namespace(self) -> Result<()> {
        run(&self.place.remover, self.place.remove, &self.namespace).await
    }
}

#[async_trait]
impl<S: Server> StoreFixture for CaseFixture<S> {
    type Store = Postgres;

    async fn node(&self) -> Result<StoreNode<Postgres>> {
        let (postgres, way) = self.process().await?;
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
        let rows = sqlx::query(self.sql(ROWS))
            .fetch_all(&mut conn)
            .await
            .map_err(fault)?;
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

/// Runs these statements at this place, with the names of this namespace put in.
pub(crate) async fn run(at: &Url, statements: &str, namespace: &Namespace) -> Result<()> {
    let mut conn = connection(at).await?;
    sqlx::raw_sql(sql(statements, namespace))
        .execute(&mut conn)
        .await
        .map_err(fault)?;
    conn.close().await.map_err(fault)
}

/// The schema of the application of this namespace.
pub(crate) fn app(namespace: &Namespace) -> String {
    format!("{namespace}_app")
}

fn sql(text: &str, namespace: &Namespace) -> AssertSqlSafe<String> {
    AssertSqlSafe(
        text.replace("{schema}", namespace.as_str())
            .replace("{app}", &app(namespace)),
    )
}

async fn connection(at: &Url) -> Result<PgConnection> {
    PgConnection::connect(at.as_str()).await.map_err(fault)
}

fn fault(error: sqlx::Error) -> Error {
    Error::new(ErrorKind::Internal, "the fixture's own statement failed").with_source(error)
}

fn no_way(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "no way to the server").with_source(error)
}
