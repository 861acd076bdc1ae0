//! For tests: the indexes, recomputed from the rows.

use std::collections::{BTreeMap, BTreeSet};

use super::{ChainKey, OutboxTable, Phase};

impl OutboxTable {
    /// Recomputes every index from the rows and compares.
    pub(in crate::store) fn assert_consistent(&self) {
        let mut chains = BTreeMap::<ChainKey, BTreeMap<u64, u64>>::new();
        let mut candidates = BTreeSet::new();
        for (number, row) in &self.rows {
            assert_eq!(self.ids.get(&row.message.id), Some(number));
            let indexed = match row.phase {
                Phase::Delayed => self.delayed.contains(&(row.due, *number)),
                Phase::Leased { until, .. } => self.leases.contains(&(until, *number)),
                Phase::Retrying { until } => self.retrying.contains(&(until, *number)),
                Phase::Lapsed { .. } => self.lapsed.contains(number),
                Phase::Ready => true,
            };
            assert!(indexed);
            match row.chain() {
                Some(key) if row.phase != Phase::Delayed => {
                    chains.entry(key).or_default().insert(row.place, *number);
                }
                None if row.phase.is_claimable() => drop(candidates.insert(row.candidate(*number))),
                _ => {}
            }
        }
        for (key, rows) in &chains {
            let leased = rows
                .values()
                .filter(|number| self.rows[number].phase.is_leased())
                .count();
            assert_eq!((&self.chains[key].rows, self.chains[key].leased), (rows, leased));
            let head = rows
                .values()
                .next()
                .filter(|number| leased == 0 && self.rows[number].phase.is_claimable());
            candidates.extend(head.map(|number| self.rows[number].candidate(*number)));
        }
        assert_eq!(
            (self.chains.len(), self.ids.len()),
            (chains.len(), self.rows.len())
        );
        assert_eq!(self.candidates, candidates);
        let indexed = self.leases.len() + self.retrying.len() + self.lapsed.len() + self.delayed.len();
        assert_eq!(
            indexed,
            self.rows.values().filter(|row| row.phase != Phase::Ready).count()
        );
    }
}
