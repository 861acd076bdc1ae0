//! The user's own rows, for transactions that write them beside messages and marks.

use std::collections::BTreeMap;

use bytes::Bytes;
use headless_abstractions::{Error, Result};

use crate::Memory;

const MAX_TABLE: usize = 100;
const MAX_KEY: usize = 512;

/// Committed rows by table and key.
#[derive(Default)]
pub(super) struct Tables(BTreeMap<String, BTreeMap<String, Bytes>>);

impl Memory {
    /// The committed rows of a table in the order of their keys, as copies. For tests and demonstrations: it answers
    /// whatever has become of this handle.
    #[must_use]
    pub fn rows(&self, table: &str) -> Vec<(String, Bytes)> {
        self.server.database.read(|state, _| {
            let rows = state.tables.0.get(table).into_iter().flatten();
            rows.map(|(key, value)| (key.clone(), value.clone())).collect()
        })
    }

    /// The committed row of this table and key, as [`rows`](Self::rows) reads it.
    #[must_use]
    pub fn row(&self, table: &str, key: &str) -> Option<Bytes> {
        self.server.database.read(|state, _| state.tables.get(table, key))
    }
}

impl Tables {
    pub(super) fn get(&self, table: &str, key: &str) -> Option<Bytes> {
        self.0.get(table)?.get(key).cloned()
    }

    /// Writes a row, or removes it for `None`.
    pub(super) fn set(&mut self, table: String, key: String, value: Option<Bytes>) {
        let rows = self.0.entry(table).or_default();
        match value {
            Some(value) => drop(rows.insert(key, value)),
            None => drop(rows.remove(&key)),
        }
    }
}

/// Refuses names that a table or a key cannot have.
pub(super) fn check_names(operation: &'static str, table: &str, key: &str) -> Result<()> {
    for (field, name, limit) in [("table", table, MAX_TABLE), ("key", key, MAX_KEY)] {
        let wrong = if name.is_empty() {
            format!("{field} is empty")
        } else if name.len() > limit {
            format!("{field} is {} bytes, the limit is {limit}", name.len())
        } else {
            continue;
        };
        return Err(Error::invalid(wrong)
            .with_operation(operation)
            .with_provider("memory"));
    }
    Ok(())
}
