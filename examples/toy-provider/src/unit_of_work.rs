//! Transactions: statements that are kept aside, and take effect together or not at all.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    Appended, Arrival, Error, ErrorKind, Hold, InboxState, Marked, Message, OwnedTx, Result, StoreId,
    StoreTx, UnitOfWorkStore,
};

use crate::{
    dead_letter::Lineage,
    error::NAME,
    outbox::Row,
    server::{Link, Locked, State},
    store::ToyStore,
};

/// What an open transaction has stated so far.
#[derive(Debug, Default)]
pub(crate) struct Open {
    link: u64,
    appends: Vec<(u64, Row)>,
    marks: Vec<(Arrival, Hold)>,
    rows: Vec<(String, String)>,
}

/// A transaction of a [`ToyStore`].
#[derive(Debug)]
pub struct ToyTx {
    link: Arc<Link>,
    id: u64,
    doomed: bool,
}

impl State {
    /// Ends a transaction: its locks are free.
    fn end(&mut self, id: u64) -> Option<Open> {
        self.inbox.locks.retain(|_, (by, _)| *by != id);
        self.open.remove(&id)
    }

    /// Ends all transactions of a connection.
    pub(crate) fn end_all(&mut self, link: u64) {
        let theirs = self.open.iter().filter(|(_, open)| open.link == link);
        for id in theirs.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.end(id);
        }
    }

    /// What a transaction is answered to these marks: by the inbox without its own locks, with its own marks.
    fn answer(&self, id: u64, marks: &[(Arrival, Hold)], now: Duration) -> Vec<Marked> {
        let mut view = self.inbox.clone();
        view.locks.retain(|_, (by, _)| *by != id);
        let mark = |(arrival, hold): &_| view.end(arrival, *hold, InboxState::Processed, now);
        marks.iter().map(mark).collect()
    }
}

fn conflict(why: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, why).with_provider(NAME)
}

impl ToyTx {
    /// Writes a row into the user's own table, whose keys are not empty and are written once.
    ///
    /// # Errors
    /// `Invalid` for an empty key; `Conflict` for one that is there already or in a doomed transaction; `Unavailable`.
    #[expect(clippy::unused_async, reason = "a real client's statement is awaited")]
    pub async fn put(&mut self, key: &str, value: &str) -> Result<()> {
        self.statement("put", |id, server| {
            let State { table, open, .. } = &mut **server;
            let Some(open) = open.get_mut(&id) else {
                return Err(conflict("the transaction has ended"));
            };
            if key.is_empty() {
                return Err(Error::invalid("the key is empty").with_provider(NAME));
            }
            if table.contains_key(key) || open.rows.iter().any(|(there, _)| there == key) {
                return Err(conflict("the key is there already"));
            }
            open.rows.push((key.to_owned(), value.to_owned()));
            Ok(())
        })
    }

    /// Every statement comes through here: a failure dooms what follows.
    fn statement<T>(
        &mut self,
        operation: &'static str,
        run: impl FnOnce(u64, &mut Locked<'_>) -> Result<T>,
    ) -> Result<T> {
        if self.doomed {
            let doomed = conflict("the transaction is doomed by an earlier failure; roll it back");
            return Err(doomed.with_operation(operation));
        }
        let server = self.link.look(operation);
        let answer = server.and_then(|mut server| run(self.id, &mut server));
        self.doomed = answer.is_err();
        answer.map_err(|error| error.with_operation(operation))
    }
}

#[async_trait]
impl StoreTx for ToyTx {
    async fn append(&mut self, messages: &[Message]) -> Result<Vec<Appended>> {
        self.statement("append", |id, server| {
            let now = server.now;
            let State {
                outbox,
                open,
                sequence,
                ..
            } = &mut **server;
            let Some(open) = open.get_mut(&id) else {
                return Err(conflict("the transaction has ended"));
            };
            let append = |message: &Message| {
                if outbox.has(message.id) || open.appends.iter().any(|(_, row)| row.message.id == message.id)
                {
                    return Appended::Duplicate;
                }
                // The place is taken now; who commits first does not matter.
                let number = sequence.next();
                open.appends
                    .push((number, Row::new(message.clone(), number, now, Lineage::default())));
                Appended::Stored
            };
            Ok(messages.iter().map(append).collect())
        })
    }

    async fn mark_processed(&mut self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        self.statement("mark_processed", |id, server| {
            let earlier = server
                .open
                .get(&id)
                .map(|open| open.marks.clone())
                .unwrap_or_default();
            let both = [&earlier, marks].concat();
            let answers = server.answer(id, &both, server.now).split_off(earlier.len());
            for (mark, answer) in marks.iter().zip(&answers) {
                if *answer == Marked::Now {
                    let (arrival, _) = mark;
                    let key = (arrival.group.clone(), arrival.id);
                    server
                        .inbox
                        .locks
                        .insert(key, (id, arrival.idempotency_key.clone()));
                    if let Some(open) = server.open.get_mut(&id) {
                        open.marks.push(mark.clone());
                    }
                }
            }
            Ok(answers)
        })
    }
}

#[async_trait]
impl OwnedTx for ToyTx {
    async fn commit(mut self: Box<Self>) -> Result<()> {
        let id = self.id;
        let link = self.link.clone();
        // To be doomed is known here; that the connection is cut, from the server.
        self.statement("commit", |_, _| Ok(()))?;
        let mut server = link.change("commit")?;
        let Some(open) = server.end(id) else {
            return Err(conflict("the transaction has ended"));
        };
        let now = server.now;
        // Nobody could change what was marked: it was locked since.
        for (arrival, _) in open.marks {
            server.inbox.row(&arrival).finish(InboxState::Processed, now);
        }
        server.table.extend(open.rows);
        for (number, row) in open.appends {
            // Two transactions may both have stated it.
            if !server.outbox.has(row.message.id) {
                server.outbox.rows.insert(number, row);
            }
        }
        Ok(())
    }

    async fn rollback(self: Box<Self>) -> Result<()> {
        self.link.change("rollback")?.end(self.id);
        Ok(())
    }
}

impl Drop for ToyTx {
    fn drop(&mut self) {
        // Over a cut connection the server has ended it already.
        if let Ok(mut server) = self.link.change("rollback") {
            server.end(self.id);
        }
    }
}

#[async_trait]
impl UnitOfWorkStore for ToyStore {
    type Tx = ToyTx;

    fn store_id(&self) -> StoreId {
        self.id()
    }

    async fn begin(&self) -> Result<ToyTx> {
        let mut server = self.link.look("begin")?;
        let id = server.sequence.next();
        let open = Open {
            link: self.link.id,
            ..Open::default()
        };
        server.open.insert(id, open);
        Ok(ToyTx {
            link: self.link.clone(),
            id,
            doomed: false,
        })
    }
}
