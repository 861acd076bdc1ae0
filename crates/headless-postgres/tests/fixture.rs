//! The fixture: a schema of its own for each case, and nodes that a crash can cut off.

mod transport;

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{Error, ErrorKind, Result};
use headless_harness::{FaultProxy, Fixture, Namespace, StoreFixture, StoreNode, Unavailable, services};
use headless_postgres::{Postgres, PostgresConfig, PostgresTx, Schema};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use url::Url;

const CREATE: &str = include_str!("fixture/create.sql");
const DROP: &str = include_str!("fixture/drop.sql");
const ROWS: &str = include_str!("fixture/rows.sql");
const VERSION: &str = include_str!("fixture/version.sql");
const WRITE_ROW: &str = include_str!("fixture/write_row.sql");

/// The schema of one case, and beside it one for the application's own table.
#[derive(Debug)]
pub(crate) struct PostgresFixture {
    url: Url,
    namespace: Namespace,
    version: String,
    /// The ways of the nodes to the server. They last as long as the case, whatever it keeps of a node.
    ways: Mutex<Vec<Arc<FaultProxy>>>,
}

impl PostgresFixture {
    /// The settings of a node that finds the server at `url`: few connections, since many cases share the server.
    fn config(&self, url: &Url) -> Result<PostgresConfig> {
        const FEW: NonZeroU32 = NonZeroU32::new(3).unwrap();
        // Small enough that a case can send more than this without filling the machine.
        const PAYLOAD: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();
        let mut url = url.clone();
        // Where the application's own statements find its table, and how the case's sessions are known at its end.
        url.query_pairs_mut()
            .append_pair("options[search_path]", &format!("{}_app", self.namespace))
            .append_pair("application_name", self.namespace.as_str());
        Ok(PostgresConfig::new(url.as_str())?
            .with_schema(Schema::parse(self.namespace.as_str())?)
            .with_max_connections(FEW)
            .with_control_connections(FEW)
            .with_max_payload(PAYLOAD))
    }

    /// This text of SQL with the schemas' names put in.
    fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        let schema = self.namespace.as_str();
        AssertSqlSafe(
            text.replace("{schema}", schema)
                .replace("{app}", &format!("{schema}_app")),
        )
    }

    async fn connection(&self) -> Result<PgConnection> {
        PgConnection::connect(self.url.as_str()).await.map_err(fault)
    }

    /// Another process, and its way to the server: a crash cuts it.
    async fn process(&self) -> Result<(Postgres, Arc<FaultProxy>)> {
        let way = Arc::new(FaultProxy::in_front_of(self.url.as_str()).map_err(no_way)?);
        let url = way.url_for(self.url.as_str()).map_err(no_way)?;
        let url = Url::parse(&url).map_err(|error| Error::invalid(error.to_string()))?;
        self.ways
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(way.clone());
        Ok((Postgres::connect_with(self.config(&url)?).await?, way))
    }
}

#[async_trait]
impl Fixture for PostgresFixture {
    const LEASE: Duration = Duration::from_millis(1_500);

    async fn open(namespace: Namespace) -> Result<Self, Unavailable> {
        let url = services::postgres()?;
        let mut url = Url::parse(&url).map_err(|error| Unavailable::Broken(error.to_string()))?;
        if !url.query_pairs().any(|(name, _)| name == "sslmode") {
            // Agreeing on keys takes an unoptimised build longer than some cases allow a call.
            url.query_pairs_mut().append_pair("sslmode", "disable");
        }
        let mut fixture = Self {
            url,
            namespace,
            version: String::new(),
            ways: Mutex::default(),
        };
        Postgres::migrate(&fixture.config(&fixture.url)?).await?;
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
        let mut conn = self.connection().await?;
        sqlx::raw_sql(self.sql(DROP))
            .execute(&mut conn)
            .await
            .map_err(fault)?;
        conn.close().await.map_err(fault)
    }
}

#[async_trait]
impl StoreFixture for PostgresFixture {
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

fn fault(error: sqlx::Error) -> Error {
    Error::new(ErrorKind::Internal, "the fixture's own statement failed").with_source(error)
}

fn no_way(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "no way to the server").with_source(error)
}
