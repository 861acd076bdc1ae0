//! The mutations of the desired state.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    ControlChange, ControlEntry, ControlPut, ControlStore, ControlSubject, ControlVersion, Cursor, ErrorKind,
    Page, Result,
};

use super::Mutant;
use crate::mutation::Mutation;

/// The most entries of one list.
const MANY: usize = 1_000;

/// A desired state with a bug in it.
#[derive(Debug)]
pub(super) struct MutantControl {
    pub(super) inner: Arc<dyn ControlStore>,
    pub(super) mutant: Arc<Mutant>,
}

impl MutantControl {
    fn is(&self, mutation: Mutation) -> bool {
        self.mutant.bug.is(mutation)
    }

    /// The version of the entry that is there now.
    async fn current(&self, change: &ControlChange) -> Result<ControlVersion> {
        let entries = self.inner.list(&change.service, None, MANY).await?.items;
        let entry = entries.into_iter().find(|entry| entry.subject == change.subject);
        Ok(entry.map_or(ControlVersion::NONE, |entry| entry.version))
    }

    /// What the bug makes of a change before the store sees it.
    async fn bent(&self, change: &ControlChange) -> Result<ControlChange> {
        let mut bent = change.clone();
        if self.is(Mutation::WhoForgotten) {
            bent.by = "somebody".into();
        }
        if self.is(Mutation::EntriesShared) {
            bent.service = "all".into();
        }
        if let ControlSubject::Group { topic, .. } = &mut bent.subject
            && self.is(Mutation::TopicForgotten)
        {
            *topic = None;
        }
        let current = self.current(&bent).await?;
        let is_first = bent.expected == ControlVersion::NONE;
        let is_removed = self.mutant.bug.seen(|seen| seen.removed.contains(&current));
        if self.is(Mutation::ExpectedIgnored)
            || self.is(Mutation::EntriesShared)
            || self.is(Mutation::TopicForgotten)
            || (self.is(Mutation::VersionStands) && !is_first)
            || (self.is(Mutation::VersionBeginsAnew) && is_first && is_removed)
        {
            bent.expected = current;
        }
        Ok(bent)
    }

    /// What the bug makes of an entry.
    fn shown(&self, mut entry: ControlEntry) -> ControlEntry {
        if self.is(Mutation::VersionStands) {
            entry.version = ControlVersion::new(1);
        }
        if self.is(Mutation::AgeForgotten) {
            entry.changed = Duration::ZERO;
        }
        entry
    }
}

#[async_trait]
impl ControlStore for MutantControl {
    async fn put(&self, change: &ControlChange) -> Result<ControlPut> {
        let latest = self.inner.revision().await?;
        let next = ControlVersion::new(latest.get() + 1);
        if self.is(Mutation::ControlForgotten)
            || (self.is(Mutation::RemovalForgotten) && change.desired.is_nothing())
        {
            return Ok(ControlPut::Stored(next));
        }
        match self.inner.put(&self.bent(change).await?).await {
            Ok(ControlPut::Stored(_)) if self.is(Mutation::VersionStands) => {
                Ok(ControlPut::Stored(ControlVersion::new(1)))
            }
            Ok(ControlPut::Stored(version)) => {
                if change.desired.is_nothing() {
                    self.mutant.bug.seen(|seen| seen.removed.insert(version));
                }
                Ok(ControlPut::Stored(version))
            }
            Ok(ControlPut::Conflict(there)) => {
                self.mutant.bug.seen(|seen| seen.conflicts += 1);
                let there = there.filter(|_| !self.is(Mutation::ConflictBlind));
                Ok(ControlPut::Conflict(there.map(|entry| self.shown(entry))))
            }
            Err(error) if error.kind() == ErrorKind::TooLarge && self.is(Mutation::ControlUnbounded) => {
                Ok(ControlPut::Stored(next))
            }
            Err(error) => Err(error),
        }
    }

    async fn list(&self, service: &str, after: Option<&Cursor>, limit: usize) -> Result<Page<ControlEntry>> {
        let service = if self.is(Mutation::EntriesShared) {
            "all"
        } else {
            service
        };
        // One row more than is shown, so that the cursor stands behind a row that nobody sees.
        let asked = limit + usize::from(self.is(Mutation::CursorSkips) && limit < MANY);
        let mut page = match self.inner.list(service, after, asked).await {
            Err(error) if error.kind() == ErrorKind::Invalid && self.is(Mutation::ControlUnchecked) => {
                self.inner.list(service, None, limit.clamp(1, MANY)).await?
            }
            answer => answer?,
        };
        page.items.truncate(limit);
        page.items = page.items.into_iter().map(|entry| self.shown(entry)).collect();
        if self.is(Mutation::OneControlPage) {
            page.next = None;
        }
        Ok(page)
    }

    async fn revision(&self) -> Result<ControlVersion> {
        let revision = self.inner.revision().await?;
        if self.is(Mutation::RevisionOfFirst) {
            return Ok(revision.min(ControlVersion::new(1)));
        }
        let ahead = u64::from(self.is(Mutation::RevisionAhead));
        let conflicts = match self.is(Mutation::ConflictCounts) {
            true => self.mutant.bug.seen(|seen| seen.conflicts),
            false => 0,
        };
        Ok(ControlVersion::new(revision.get() + ahead + conflicts))
    }
}
