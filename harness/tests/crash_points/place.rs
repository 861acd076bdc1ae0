//! The servers as one member is connected to them, and the rows of the trial on them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use headless::{
    AnyStore, AnyTransport, DeadLetterFilter, ErrorKind, GroupName, HandlerError, Memory, MemoryTx, Origin,
    Postgres, PostgresTx, Providers, RabbitMq, Result,
    postgres::sqlx::{AssertSqlSafe, Row, query, raw_sql},
};
use headless_abstractions::{InboxParts, OwnedTx, Store, Transport, UnitOfWorkStore};

/// How often handlers were called, by group and line.
pub(crate) type Calls = BTreeMap<(String, u32), u64>;

/// Calls of handlers, where all members are of this process.
static CALLS: Mutex<Calls> = Mutex::new(Calls::new());

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
    providers: Providers,
    urls: [String; 2],
    /// What this member has of servers in memory, of each time that it has connected.
    memory: Arc<Mutex<Vec<Memory>>>,
}

impl Place {
    pub(crate) async fn connect(providers: &Providers, urls: &[String; 2]) -> Result<Self> {
        Self::of_member(providers, urls, Arc::default()).await
    }

    /// Connects once more, as the same member: what has shut down has closed its transport.
    pub(crate) async fn again(&self) -> Result<Self> {
        Self::of_member(&self.providers, &self.urls, self.memory.clone()).await
    }

    async fn of_member(
        providers: &Providers,
        urls: &[String; 2],
        memory: Arc<Mutex<Vec<Memory>>>,
    ) -> Result<Self> {
        let [store, transport] = urls;
        let connected = providers.connect(store).await?;
        let moved = if store == transport {
            connected.clone()
        } else {
            providers.connect(transport).await?
        };
        let (store, transport) = (connected.store()?, moved.transport()?);
        let in_memory = [store.typed(), transport.typed()].into_iter().flatten();
        memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(in_memory);
        Ok(Self {
            store,
            transport,
            providers: providers.clone(),
            urls: urls.clone(),
            memory,
        })
    }

    /// Cuts what of it is in memory, as the kernel closes the sockets of a process.
    pub(crate) fn sever(&self) {
        for memory in &*self.memory.lock().unwrap_or_else(PoisonError::into_inner) {
            memory.sever();
        }
    }

    /// The inbox and the dead letters of its store, as a driver has them.
    pub(crate) fn inbox(&self) -> InboxParts {
        let parts = match self.postgres() {
            Some(postgres) => postgres.parts(),
            None => self.in_memory().parts(),
        };
        parts.inbox.expect("the store has an inbox")
    }

    /// Its transport, as a driver.
    pub(crate) fn driver(&self) -> Arc<dyn Transport> {
        match (
            self.transport.typed::<RabbitMq>(),
            self.transport.typed::<Postgres>(),
        ) {
            (Some(rabbitmq), _) => Arc::new(rabbitmq),
            (None, Some(postgres)) => Arc::new(postgres),
            (None, None) => Arc::new(self.in_memory()),
        }
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

    /// Counts a call of a handler with these, whatever becomes of it: in a transaction of its own.
    pub(crate) async fn count_call(
        &self,
        group: &str,
        lines: &[u32],
    ) -> std::result::Result<(), HandlerError> {
        let Some(postgres) = self.postgres() else {
            let mut calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
            for line in lines {
                *calls.entry((group.to_owned(), *line)).or_default() += 1;
            }
            return Ok(());
        };
        let lines: Vec<i32> = lines.iter().map(|line| line.cast_signed()).collect();
        let call = query(sql(&postgres, include_str!("call.sql")))
            .bind(group)
            .bind(lines);
        call.execute(postgres.client())
            .await
            .map_err(HandlerError::retry)?;
        Ok(())
    }

    /// How often handlers were called with each line.
    pub(crate) async fn calls(&self) -> Calls {
        let Some(postgres) = self.postgres() else {
            return CALLS.lock().unwrap_or_else(PoisonError::into_inner).clone();
        };
        let rows = query(sql(&postgres, include_str!("calls.sql")));
        let rows = rows.fetch_all(postgres.client()).await.expect("they are counted");
        let calls = rows.iter().map(|row| {
            let line = row.get::<i32, _>(1).cast_unsigned();
            let count = row.get::<i64, _>(2).cast_unsigned();
            ((row.get(0), line), count)
        });
        calls.collect()
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
