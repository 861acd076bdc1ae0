//! What operators want of services, as those who operate ask for it.

use std::sync::Arc;

use headless_abstractions::{
    ControlChange, ControlEntry, ControlPut, ControlStore, ControlSubject, ControlVersion, DesiredState,
    Error, ErrorKind, Result, StoreParts,
};

/// How often a change is tried where others change the same subject meanwhile.
const TRIES: usize = 10;

/// The most entries of one page.
const PAGE: usize = 1_000;

/// What operators want of the services of a store. Clones are handles on one.
///
/// What is wanted is kept in the store: each process of the service applies it, however it was started, and says with its
/// heartbeat how far it has come.
#[derive(Clone, Debug)]
pub struct Control(Arc<dyn ControlStore>);

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changed {
    /// The version at which it is wanted: who has applied it, or a later one, has acknowledged it.
    pub version: ControlVersion,
    /// What was wanted before.
    pub before: DesiredState,
    /// What is wanted now.
    pub now: DesiredState,
}

impl Changed {
    /// Whether nothing had to be stored, since it was wanted already.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.before == self.now
    }
}

impl Control {
    /// That of this store; `None` when it keeps none.
    #[must_use]
    pub fn of(store: &StoreParts) -> Option<Self> {
        store.control.clone().map(Self)
    }

    /// The version of the latest change in the store, of any service.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn revision(&self) -> Result<ControlVersion> {
        self.0.revision().await
    }

    /// Everything that is wanted of this service, and what was taken back: [`ControlEntry::MOST`] entries at most.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn list(&self, service: &str) -> Result<Vec<ControlEntry>> {
        let (mut entries, mut after) = (Vec::new(), None);
        loop {
            let page = self.0.list(service, after.as_ref(), PAGE).await?;
            entries.extend(page.items);
            after = page.next;
            if after.is_none() || entries.len() > ControlEntry::MOST {
                return Ok(entries);
            }
        }
    }

    /// Changes what is wanted of a subject: `to` is given what is wanted now, and asked again where somebody else was
    /// faster. What is wanted already is not stored once more.
    ///
    /// # Errors
    /// What `to` answers; `Invalid` and `TooLarge` as [`ControlChange::new`]; `Conflict` when others change it all the
    /// time; else what the store answers.
    ///
    /// # Cancel safety
    /// Dropping the future leaves it open whether it was stored. Repeating it is harmless.
    pub async fn change(
        &self,
        service: &str,
        subject: &ControlSubject,
        by: &str,
        to: impl Fn(DesiredState) -> Result<DesiredState>,
    ) -> Result<Changed> {
        let mut there = self
            .list(service)
            .await?
            .into_iter()
            .find(|entry| entry.subject == *subject);
        for _ in 0..TRIES {
            let before = there
                .as_ref()
                .map_or(DesiredState::nothing(), |entry| entry.desired);
            let expected = there.as_ref().map_or(ControlVersion::NONE, |entry| entry.version);
            let now = to(before)?;
            // Made also where nothing is stored, since it refuses what is out of bounds.
            let change = ControlChange::new(service, subject.clone(), now, by)?.with_expected(expected);
            if now == before {
                return Ok(Changed {
                    version: expected,
                    before,
                    now,
                });
            }
            match self.0.put(&change).await? {
                ControlPut::Stored(version) => return Ok(Changed { version, before, now }),
                ControlPut::Conflict(met) => there = met,
            }
        }
        Err(Error::new(
            ErrorKind::Conflict,
            format!("others have changed {subject} {TRIES} times meanwhile: ask again"),
        )
        .with_operation("change"))
    }
}
