//! For tests: the indexes, recomputed from the rows.

use std::collections::BTreeSet;

use super::{InboxTable, Listed, Phase, Reserved, Row, RowKey, Running, Source, View, chain_of};

impl InboxTable {
    /// Recomputes every index from the rows and compares; above all, nothing that could be claimed is unlisted.
    pub(in crate::store) fn assert_consistent(&self, view: &View<'_>) {
        let (mut parked, mut leases, mut listed, mut waiting) = (0, 0, 0, 0);
        for (key, row) in &self.rows {
            let from_park = matches!(
                row.phase,
                Phase::Running(Running {
                    from: Source::Park,
                    ..
                })
            );
            let is_parked = matches!(row.phase, Phase::Parked { .. });
            assert_eq!(row.place.is_some(), is_parked || from_park);
            assert!(is_parked || row.listed.is_none());
            parked += usize::from(row.place.is_some());
            leases += usize::from(matches!(row.phase, Phase::Running(_)));
            let reserved = self.reserved(&row.arrival, view);
            if matches!(row.phase, Phase::Running(_) | Phase::Processed)
                && row.arrival.idempotency_key.is_some()
            {
                let or_duplicate = row.phase == Phase::Processed && reserved == Reserved::Processed;
                assert!(
                    reserved == Reserved::Own || or_duplicate,
                    "what runs or was processed has its operation"
                );
            }
            if is_parked {
                assert_eq!(
                    row.listed.is_some(),
                    self.may_be_claimed_first(key, row),
                    "{key:?}"
                );
            }
            match row.listed {
                Some(Listed::Due(_)) => listed += 1,
                Some(Listed::Waiting) => {
                    waiting += 1;
                    assert!(
                        matches!(reserved, Reserved::Other | Reserved::Locked),
                        "{key:?} waits for nothing"
                    );
                }
                None => {}
            }
        }
        let groups = || self.groups.values();
        assert_eq!(groups().map(|group| group.parked).sum::<usize>(), parked);
        assert_eq!(
            groups()
                .flat_map(|group| group.due.values())
                .map(BTreeSet::len)
                .sum::<usize>(),
            listed
        );
        assert_eq!(self.waiting.values().map(BTreeSet::len).sum::<usize>(), waiting);
        let leased = groups().map(|group| group.park_leases.len() + group.delivery_leases.len());
        assert_eq!(leased.sum::<usize>(), leases);
        let keyed = self
            .rows
            .values()
            .filter(|row| row.place.is_some() && row.arrival.key.is_some())
            .count();
        assert_eq!(
            self.chains.values().map(|chain| chain.rows.len()).sum::<usize>(),
            keyed
        );
    }

    fn may_be_claimed_first(&self, key: &RowKey, row: &Row) -> bool {
        let Some(chain) = chain_of(&row.arrival).map(|key| &self.chains[&key]) else {
            return true;
        };
        let phases = chain
            .rows
            .values()
            .map(|id| self.rows[&(key.0.clone(), *id)].phase);
        let running = phases.filter(|phase| matches!(phase, Phase::Running(_))).count();
        assert_eq!(chain.running, running);
        running == 0 && chain.rows.values().next() == Some(&key.1)
    }
}
