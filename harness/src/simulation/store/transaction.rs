//! A transaction as a node of the simulation reaches it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use headless_abstractions::{
    Appended, Arrival, Error, ErrorKind, GroupName, Hold, InboxState, Marked, Message, MessageId, OwnedTx,
    Result, StoreTx,
};
use headless_memory::MemoryTx;

use super::{
    inbox::{held, reached},
    marked,
};
use crate::simulation::{
    gate::{Fate, Gate, Op},
    history::Fact,
    label::{Label, list},
};

/// The table of the handlers' rows. Rows are appended, so that a second effect of one message is a second row.
pub(in crate::simulation) const LEDGER: &str = "ledger";

/// A transaction of the memory store, and what becomes a fact when it commits.
pub(in crate::simulation) struct SimTx {
    tx: MemoryTx,
    gate: Arc<Gate>,
    staged: Vec<Fact>,
    /// Whether a call has failed.
    doomed: bool,
}

impl SimTx {
    pub(super) const fn new(tx: MemoryTx, gate: Arc<Gate>) -> Self {
        Self {
            tx,
            gate,
            staged: Vec::new(),
            doomed: false,
        }
    }

    /// Writes the row that says that a group has handled a message.
    pub(in crate::simulation) async fn handled(&mut self, group: &GroupName, id: MessageId) -> Result<()> {
        let Self {
            tx,
            gate,
            staged,
            doomed,
        } = self;
        let row = format!("{group} {}", Label(id));
        let call = tx.push(LEDGER, row.clone());
        let pushed = gate.call(Op::any("push"), call, |()| row.clone()).await;
        *doomed |= pushed.is_err();
        pushed?;
        staged.push(Fact::Effect(group.clone(), id));
        Ok(())
    }

    /// Writes a row of the producers' own.
    pub(in crate::simulation) async fn put(&mut self, table: &str, key: &str) -> Result<()> {
        let call = self.tx.put(table, key, "");
        let put = self.gate.call(Op::any("put"), call, |()| key.to_owned()).await;
        self.doomed |= put.is_err();
        put
    }
}

#[async_trait]
impl StoreTx for SimTx {
    async fn append(&mut self, messages: &[Message]) -> Result<Vec<Appended>> {
        let Self {
            tx,
            gate,
            staged,
            doomed,
        } = self;
        let call = tx.append(messages);
        let tell = |answers: &Vec<Appended>| {
            let each = messages.iter().zip(answers);
            list(each.map(|(message, answer)| format!("{} {answer:?}", Label(message.id))))
        };
        let answers = gate.call(Op::any("append in tx"), call, tell).await;
        *doomed |= answers.is_err();
        let answers = answers?;
        for (message, answer) in messages.iter().zip(&answers) {
            if *answer == Appended::Stored {
                staged.push(Fact::Stored(message.id));
            }
        }
        Ok(answers)
    }

    async fn mark_processed(&mut self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        let Self {
            tx,
            gate,
            staged,
            doomed,
        } = self;
        let call = tx.mark_processed(marks);
        let tell = |answers: &Vec<Marked>| {
            list(marks.iter().zip(answers).map(|((arrival, hold), answer)| {
                let (group, id) = (&arrival.group, Label(arrival.id));
                format!("{group} {id} {} {}", held(*hold), marked(answer))
            }))
        };
        let answers = gate.call(Op::any("mark in tx"), call, tell).await;
        *doomed |= answers.is_err();
        let answers = answers?;
        for ((arrival, hold), answer) in marks.iter().zip(&answers) {
            if *answer == Marked::Now {
                staged.push(reached(arrival, *hold, InboxState::Processed));
            }
        }
        Ok(answers)
    }
}

#[async_trait]
impl OwnedTx for SimTx {
    /// Beside the usual ways to fail, a commit may be slow to arrive: the caller is told that its outcome is unknown,
    /// and it happens later.
    async fn commit(self: Box<Self>) -> Result<()> {
        const COMMIT: Op = Op::any("commit");
        let Self {
            tx,
            gate,
            staged,
            doomed,
        } = *self;
        if doomed {
            return Err(Error::new(
                ErrorKind::Conflict,
                "the transaction is doomed since one of its calls failed",
            ));
        }
        let fate = gate.arrive(COMMIT).await;
        if let Some(error) = gate.failure(COMMIT, fate) {
            return Err(error);
        }
        if fate == Fate::AnswerLost && gate.chance().happens(5_000) {
            let late = gate.chance().millis(1, 1_500);
            gate.note(format_args!("commit comes {late:?} late"));
            tokio::spawn({
                let gate = gate.clone();
                async move {
                    tokio::time::sleep(late).await;
                    // Whoever waited for the answer has been given another.
                    let _answer = apply(tx, &gate, staged).await;
                }
            });
            return Err(gate.unanswered(COMMIT));
        }
        let answer = apply(tx, &gate, staged).await;
        gate.leave().await;
        match fate {
            Fate::AnswerLost if answer.is_ok() => Err(gate.unanswered(COMMIT)),
            _ => answer,
        }
    }

    async fn rollback(self: Box<Self>) -> Result<()> {
        let Self { tx, gate, .. } = *self;
        gate.call(Op::any("rollback"), Box::new(tx).rollback(), |()| String::new())
            .await
    }
}

async fn apply(tx: MemoryTx, gate: &Gate, staged: Vec<Fact>) -> Result<()> {
    let answer = Box::new(tx).commit().await;
    match &answer {
        Ok(()) => {
            gate.note(format_args!("commit {staged:?}"));
            for fact in staged {
                gate.fact(fact);
            }
        }
        Err(error) => gate.note(format_args!("commit failed: {error}")),
    }
    answer
}

impl fmt::Debug for SimTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimTx")
            .field("staged", &self.staged)
            .finish_non_exhaustive()
    }
}
