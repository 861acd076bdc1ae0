//! The mutations of dead letters.

use std::time::Duration;

use async_trait::async_trait;
use headless_abstractions::{
    Bury, DeadId, DeadLetterStore, Edit, Edited, Marked, Origin, Redrive, Redriven, Result,
};

use super::Mutant;
use crate::mutation::Mutation;

impl Mutant {
    /// What a buggy redrive does after it was done.
    async fn after_redrive(&self, letter: DeadId) -> Result<()> {
        let Some(letter) = self.letter_queries.get(letter).await? else {
            return Ok(());
        };
        self.bug
            .seen(|seen| seen.redriven.insert(letter.message.id, letter.rounds.max(1)));
        if self.bug.is(Mutation::RedrivePublishes) && letter.origin != Origin::Relay {
            self.outbox.append(&[letter.message]).await?;
        }
        Ok(())
    }

    fn by(&self, by: &str) -> String {
        match self.bug.mutation {
            Some(Mutation::RedriveUnchecked) if by.is_empty() => "nobody".to_owned(),
            Some(Mutation::RedriveUnchecked) => by.chars().take(50).collect(),
            _ => by.to_owned(),
        }
    }
}

#[async_trait]
impl DeadLetterStore for Mutant {
    async fn bury(&self, burials: &[Bury]) -> Result<Vec<Marked>> {
        let mut answers = Vec::with_capacity(burials.len());
        for burial in burials {
            let mut burial = burial.clone();
            burial.arrival = self.bug.met(&burial.arrival);
            burial.hold = self.bug.checked(&burial.arrival, burial.hold);
            if self.bug.is(Mutation::ForgetFailures) && burial.failures.len() > 1 {
                burial.failures.drain(..burial.failures.len() - 1);
            }
            let arrival = burial.arrival.clone();
            let answer = if self.bug.is(Mutation::BuryForgetsLetter) {
                self.inbox.discard(&[(burial.arrival, burial.hold)]).await?[0]
            } else {
                self.letters.bury(&[burial]).await?[0]
            };
            if answer == Marked::Now && self.bug.is(Mutation::OperationOutlivesEnd) {
                self.bug.seen(|seen| seen.take(&arrival));
            }
            answers.push(self.bug.told(answer));
        }
        Ok(answers)
    }

    async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>> {
        if self.bug.is(Mutation::RedriveForgotten) {
            return Ok(vec![Redriven::Now; request.ids.len()]);
        }
        let mut asked = request.clone();
        asked.by = self.by(&asked.by);
        match self.bug.mutation {
            Some(Mutation::EditForgotten) => asked.payload = None,
            Some(Mutation::RedriveUnbounded) => {
                asked.max_redrives = u32::MAX;
                asked.max_age = None;
            }
            Some(Mutation::RedriveUnchecked) if asked.ids.len() != 1 => asked.payload = None,
            _ => {}
        }
        let mut answers = self.letters.redrive(&asked).await?;
        for (letter, answer) in asked.ids.iter().zip(&mut answers) {
            match answer {
                Redriven::Now => self.after_redrive(*letter).await?,
                Redriven::Closed | Redriven::Superseded if self.bug.is(Mutation::RedriveAgain) => {
                    *answer = Redriven::Now;
                }
                _ => {}
            }
        }
        Ok(answers)
    }

    async fn edit(&self, request: &Edit) -> Result<Edited> {
        let mut asked = request.clone();
        asked.by = self.by(&asked.by);
        match self.bug.mutation {
            Some(Mutation::EditForgotten) => return Ok(Edited::Now),
            Some(Mutation::EditUnseen) => asked.seen = None,
            Some(Mutation::EditUnbounded) => asked.max_edits = u32::MAX,
            _ => {}
        }
        let answer = self.letters.edit(&asked).await?;
        Ok(match answer {
            Edited::Closed | Edited::NotFound if self.bug.is(Mutation::EditAlwaysDone) => Edited::Now,
            answer => answer,
        })
    }

    async fn discard(&self, ids: &[DeadId], by: &str) -> Result<u64> {
        if self.bug.is(Mutation::DiscardForgotten) {
            return Ok(ids.len() as u64);
        }
        self.letters.discard(ids, &self.by(by)).await
    }

    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64> {
        self.letters
            .purge(self.bug.age(older_than), self.bug.batch(limit))
            .await
    }
}
