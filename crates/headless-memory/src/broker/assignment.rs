//! Which member is to hold which partition.

use std::hash::{DefaultHasher, Hash, Hasher};

use headless_abstractions::{Owner, Partition, Partitions, TopicName};

/// The member that each partition is to go to, in the order of the partitions; none without members.
///
/// Rendezvous hashing with a bound: a partition goes to the member with the highest score for it among those that
/// still have room, and the members' shares differ by one at most. So every member gets work, and members that stay
/// keep most of what they have. (Thaler and Ravishankar, 1998; the bound as in Mirrokni et al., 2018.)
pub(super) fn assign(
    topic: &TopicName,
    partitions: Partitions,
    members: &[(u64, Owner)],
) -> Vec<Option<u64>> {
    if members.is_empty() {
        return vec![None; usize::from(partitions.get())];
    }
    let share = usize::from(partitions.get()) / members.len();
    let mut larger_shares = usize::from(partitions.get()) % members.len();
    let mut loads = vec![0_usize; members.len()];
    partitions
        .iter()
        .map(|partition| {
            let best = (0..members.len())
                .filter(|&n| loads[n] < share || (loads[n] == share && larger_shares > 0))
                .max_by_key(|&n| score(topic, partition, members[n]))?;
            if loads[best] == share {
                larger_shares -= 1;
            }
            loads[best] += 1;
            Some(members[best].0)
        })
        .collect()
}

/// The same in every run of one build: `DefaultHasher::new` has fixed keys.
fn score(topic: &TopicName, partition: Partition, (session, owner): (u64, Owner)) -> u64 {
    let mut hasher = DefaultHasher::new();
    (owner, session, topic, partition).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(count: u16, members: u64) -> Vec<Option<u64>> {
        let members: Vec<_> = (0..members)
            .map(|n| (n, Owner::from_bits(u128::from(n) * 77)))
            .collect();
        assign(
            &TopicName::parse("orders").unwrap(),
            Partitions::new(count).unwrap(),
            &members,
        )
    }

    #[test]
    fn should_share_evenly_when_there_are_members() {
        for (count, members) in [(16, 1), (16, 3), (5, 4), (4, 2), (3, 7)] {
            let assigned = assigned(count, members);
            let shares = (0..members).map(|n| assigned.iter().filter(|to| **to == Some(n)).count());
            let (least, most) = (shares.clone().min().unwrap(), shares.clone().max().unwrap());
            assert!(most - least <= 1, "{count} among {members}: {assigned:?}");
            assert_eq!(shares.sum::<usize>(), usize::from(count));
        }
    }

    #[test]
    fn should_leave_most_in_place_when_one_joins() {
        let (before, after) = (assigned(64, 3), assigned(64, 4));
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before != after)
            .count();
        assert!(moved <= 32, "16 have to move, {moved} did");
    }

    #[test]
    fn should_assign_nothing_when_there_is_no_member() {
        assert_eq!(assigned(3, 0), [None, None, None]);
    }
}
