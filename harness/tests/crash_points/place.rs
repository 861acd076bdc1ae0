//! The servers as one member is connected to them, and the rows of the trial on them.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use headless::{
    AnyStore, AnyTransport, DeadLetterFilter, ErrorKind, GroupName, Memory, MemoryTx, Origin, Postgres,
    PostgresTx, Providers, RabbitMq, Result,
    postgres::sqlx::{AssertSqlSafe, Error as SqlError, Row, query, query_scalar, raw_sql},
};
use headless_abstractions::{OwnedTx, Transport, UnitOfWorkStore};

/// Calls of handlers, where all members are of this process.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// What a handler has done, in the order in which it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) group: String,
    pub(crate) line: u32,
    pub(crate) key: String,
}

/// The servers, as one member is connected to them.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) store: AnyStore,
    pub(crate) transport: AnyTransport,
}

impl Place {
    pub(crate) async fn connect(providers: &Providers, [store, transport]: &[String; 2]) -> Result<Self> {
        let connected = providers.connect(store).await?;
        let moved = if store == transport {
            connected.clone()
        } else {
            providers.connect(transport).await?
        };
        Ok(Self {
            store: connected.store()?,
            transport: moved.transport()?,
        })
    }

    /// What of it is in memory.
    pub(crate) fn memory(&self) -> impl Iterator<Item = Memory> {
        [self.store.typed(), self.transport.typed()].into_iter().flatten()
    }

    pub(crate) fn postgres(&self) -> Option<Postgres> {
        self.store.typed()
    }

    pub(crate) fn in_memory(&self) -> Memory {
        self.store.typed().expect("the store is PostgreSQL or in memory")
    }

    /// Makes room for the rows.
    pub(crate) async fn open(&self) {
        if let Some(postgres) = self.postgres() {
            let create = raw_sql(sql(&postgres, include_str!("create.sql")));
            create
                .execute(postgres.client())
                .await
                .expect("the schema is new");
        }
    }

    /// Counts a call of a handler, whatever becomes of it.
    pub(crate) async fn count_call(&self) -> std::result::Result<(), SqlError> {
        CALLS.fetch_add(1, SeqCst);
        if let Some(postgres) = self.postgres() {
            let call = query(sql(&postgres, include_str!("call.sql")));
            call.execute(postgres.client()).await?;
        }
        Ok(())
    }

    pub(crate) async fn calls(&self) -> u64 {
        let Some(postgres) = self.postgres() else {
            return CALLS.load(SeqCst);
        };
        let calls = query_scalar(sql(&postgres, include_str!("calls.sql")));
        let calls: i64 = calls
            .fetch_one(postgres.client())
            .await
            .expect("they are counted");
        calls.try_into().expect("it counts upwards")
    }

    /// Writes an effect outside of any unit of work.
    pub(crate) async fn write_alone(&self, effect: &Effect) -> std::result::Result<(), BoxError> {
        if let Some(postgres) = self.postgres() {
            let insert = query(sql(&postgres, include_str!("effect.sql")))
                .bind(&effect.group)
                .bind(i32::try_from(effect.line)?)
                .bind(&effect.key);
            insert.execute(postgres.client()).await?;
            return Ok(());
        }
        let mut tx = self.in_memory().begin().await?;
        write_in_memory(&mut tx, effect).await?;
        Ok(Box::new(tx).commit().await?)
    }

    /// Everything that handlers have done.
    pub(crate) async fn effects(&self) -> Vec<Effect> {
        let Some(postgres) = self.postgres() else {
            let rows = self.in_memory().rows(EFFECTS);
            return rows
                .into_iter()
                .map(|(_, row)| read(std::str::from_utf8(&row).expect("it was written as text")))
                .collect();
        };
        let rows = query(sql(&postgres, include_str!("effects.sql")));
        let rows = rows.fetch_all(postgres.client()).await.expect("they are read");
        let effect = |row: &headless::postgres::sqlx::postgres::PgRow| Effect {
            group: row.get(0),
            line: row.get::<i32, _>(1).try_into().expect("lines are counted from 0"),
            key: row.get(2),
        };
        rows.iter().map(effect).collect()
    }

    /// How many messages are dead letters of this origin.
    pub(crate) async fn dead(&self, origin: &Origin) -> usize {
        let letters = self.store.dead_letters().expect("the store keeps them");
        let page = letters.list(&DeadLetterFilter::open(), None, 1_000).await;
        let letters = page.expect("they are listed").items;
        letters.iter().filter(|letter| letter.origin == *origin).count()
    }

    /// How many messages wait for a group that nobody reads.
    pub(crate) async fn lag(&self, group: &str) -> u64 {
        let group = GroupName::parse(group).expect("a name");
        let lag = match (
            self.transport.typed::<RabbitMq>(),
            self.transport.typed::<Postgres>(),
        ) {
            (Some(rabbitmq), _) => rabbitmq.lag(&group).await,
            (None, Some(postgres)) => postgres.lag(&group).await,
            (None, None) => self.in_memory().lag(&group).await,
        };
        match lag {
            // Nobody was there yet.
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            lag => lag.expect("it is told"),
        }
    }
}

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

const EFFECTS: &str = "effects";
const PUBLISHED: &str = "published";

/// A statement, in the schema of the trial.
fn sql(postgres: &Postgres, text: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(text.replace("{schema}", postgres.config().schema.as_str()))
}

/// Writes an effect; says nothing of one that was written before.
pub(crate) async fn write_in_postgres(
    place: &Place,
    tx: &mut PostgresTx,
    effect: &Effect,
) -> std::result::Result<(), BoxError> {
    let postgres = place.postgres().ok_or("the store is not PostgreSQL")?;
    let insert = query(sql(&postgres, include_str!("effect.sql")))
        .bind(&effect.group)
        .bind(i32::try_from(effect.line)?)
        .bind(&effect.key);
    insert.execute(tx.conn()).await?;
    Ok(())
}

/// As [`write_in_postgres`].
pub(crate) async fn write_in_memory(tx: &mut MemoryTx, effect: &Effect) -> Result<()> {
    let Effect { group, line, key } = effect;
    tx.push(EFFECTS, format!("{group},{line},{key}")).await
}

fn read(row: &str) -> Effect {
    let mut fields = row.split(',');
    let mut field = || fields.next().expect("a row of three fields").to_owned();
    Effect {
        group: field(),
        line: field().parse().expect("a number"),
        key: field(),
    }
}

/// Writes that a line is published; false where it was before.
pub(crate) async fn publish_in_postgres(
    place: &Place,
    tx: &mut PostgresTx,
    line: u32,
) -> std::result::Result<bool, BoxError> {
    let postgres = place.postgres().ok_or("the store is not PostgreSQL")?;
    let insert = query(sql(&postgres, include_str!("publish.sql"))).bind(i32::try_from(line)?);
    Ok(insert.execute(tx.conn()).await?.rows_affected() == 1)
}

/// As [`publish_in_postgres`].
pub(crate) async fn publish_in_memory(tx: &mut MemoryTx, line: u32) -> Result<bool> {
    tx.put_if_absent(PUBLISHED, &line.to_string(), "").await
}
