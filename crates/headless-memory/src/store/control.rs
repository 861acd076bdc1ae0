//! What operators want of services.

use std::{collections::BTreeMap, ops::Bound, sync::Arc, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    ControlChange, ControlEntry, ControlPut, ControlStore, ControlVersion, Cursor, Page, Result,
};

use super::page::Cursors;
use crate::Memory;

/// The desired state of every service, by the texts of its subjects.
#[derive(Debug, Default)]
pub(super) struct ControlTable {
    services: BTreeMap<Arc<str>, BTreeMap<String, Row>>,
    revision: u64,
    /// Whether something was changed since the last step, so that waiters are to be woken.
    pub(super) stirred: bool,
}

#[derive(Debug)]
struct Row {
    entry: ControlEntry,
    at: Duration,
}

impl Row {
    fn seen(&self, now: Duration) -> ControlEntry {
        self.entry.clone().with_changed(now.saturating_sub(self.at))
    }
}

impl ControlTable {
    /// The version of the latest change.
    pub(super) const fn revision(&self) -> ControlVersion {
        ControlVersion::new(self.revision)
    }

    fn put(&mut self, change: &ControlChange, now: Duration) -> Result<ControlPut> {
        let subject = change.subject.to_text();
        let rows = self.services.get(&change.service);
        let there = rows.and_then(|rows| rows.get(&subject));
        if there.map_or(ControlVersion::NONE, |row| row.entry.version) != change.expected {
            return Ok(ControlPut::Conflict(there.map(|row| row.seen(now))));
        }
        if there.is_none() && rows.is_some_and(|rows| rows.len() >= ControlEntry::MOST) {
            return Err(change.one_too_many());
        }
        self.revision += 1;
        self.stirred = true;
        let version = self.revision();
        let row = Row {
            entry: ControlEntry::new(change, version),
            at: now,
        };
        let rows = self.services.entry(change.service.clone()).or_default();
        rows.insert(subject, row);
        Ok(ControlPut::Stored(version))
    }
}

#[async_trait]
impl ControlStore for Memory {
    async fn put(&self, change: &ControlChange) -> Result<ControlPut> {
        self.link.check("put").await?;
        let put = self
            .server
            .database
            .write(|state, now| state.control.put(change, now));
        put.map_err(|error| error.with_operation("put").with_provider("memory"))
    }

    async fn list(&self, service: &str, after: Option<&Cursor>, limit: usize) -> Result<Page<ControlEntry>> {
        self.link.check("list").await?;
        let cursors = Cursors::new("control", self.server.id);
        let after = cursors.read(after)?.map_or(Bound::Unbounded, Bound::Excluded);
        self.server.database.read(|state, now| {
            let rows = state.control.services.get(service);
            let rows = rows
                .into_iter()
                .flat_map(|rows| rows.range::<str, _>((after, Bound::Unbounded)));
            cursors.page(limit, rows.map(|(subject, row)| (subject.clone(), row.seen(now))))
        })
    }

    async fn revision(&self) -> Result<ControlVersion> {
        self.link.check("revision").await?;
        Ok(self.server.database.read(|state, _| state.control.revision()))
    }
}
