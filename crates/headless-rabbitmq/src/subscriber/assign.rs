//! Which member is to have which partition. A single active consumer sees to it that one has it at most; this is about a
//! fair share.

use headless_abstractions::{Partition, Partitions, TopicName};
use uuid::Uuid;

use crate::talk::Peer;

/// The partitions that the member `session` is to have, among these members.
///
/// Rendezvous hashing with a bound: a partition goes to the member with the highest score for it among those that still
/// have room, and the members' shares differ by one at most. (Thaler and Ravishankar, 1998; the bound as in Mirrokni et
/// al., 2018.) Members that know the same members come to the same answer, in whatever order they learnt of them and
/// whichever build they run: the hash is written down here.
pub(super) fn share(
    session: Uuid,
    topic: &TopicName,
    partitions: Partitions,
    members: &[&Peer],
) -> Vec<Partition> {
    let mut members: Vec<&Peer> = members.to_vec();
    members.sort_unstable_by_key(|member| member.session);
    members.dedup_by_key(|member| member.session);
    if members.is_empty() {
        return Vec::new();
    }
    let least = usize::from(partitions.get()) / members.len();
    let mut larger = usize::from(partitions.get()) % members.len();
    let mut loads = vec![0_usize; members.len()];
    let mut mine = Vec::new();
    for partition in partitions.iter() {
        let has_room = |load: usize| load < least || (load == least && larger > 0);
        let best = members
            .iter()
            .zip(&mut loads)
            .filter(|(_, load)| has_room(**load))
            .max_by_key(|(member, _)| (score(topic, partition, member), member.session));
        if let Some((member, load)) = best {
            if *load == least {
                larger -= 1;
            }
            *load += 1;
            if member.session == session {
                mine.push(partition);
            }
        }
    }
    mine
}

/// FNV-1a of 64 bits, mixed as at the end of murmur3 so that close inputs do not score alike.
///
/// Source: Fowler, Noll and Vo's FNV-1a; Austin Appleby's `fmix64` (public domain).
fn score(topic: &TopicName, partition: Partition, member: &Peer) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let parts = member.bits();
    let number = partition.get().to_le_bytes();
    for byte in parts.iter().chain(topic.as_str().as_bytes()).chain(&number) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use headless_abstractions::Owner;

    use super::*;

    fn members(count: u128) -> Vec<Peer> {
        (1..=count)
            .map(|n| {
                Peer::new(
                    Uuid::from_u128(n * 31),
                    Owner::from_bits(n * 77),
                    vec!["orders".to_owned()],
                )
            })
            .collect()
    }

    fn shares(count: u16, members: &[&Peer]) -> Vec<Vec<u16>> {
        let topic = TopicName::parse("orders").unwrap();
        let partitions = Partitions::new(count).unwrap();
        members
            .iter()
            .map(|member| share(member.session, &topic, partitions, members))
            .map(|share| share.into_iter().map(Partition::get).collect())
            .collect()
    }

    #[test]
    fn should_share_evenly_and_each_once_when_there_are_members() {
        for (count, size) in [(16, 1), (16, 3), (5, 4), (4, 2), (3, 7), (1024, 50)] {
            let members = members(size);
            let shares = shares(count, &members.iter().collect::<Vec<_>>());
            let sizes: Vec<usize> = shares.iter().map(Vec::len).collect();
            assert!(
                sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1,
                "{sizes:?}"
            );
            let mut all: Vec<u16> = shares.into_iter().flatten().collect();
            all.sort_unstable();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn should_agree_when_members_were_learnt_of_in_another_order() {
        let members = members(5);
        let forth: Vec<&Peer> = members.iter().collect();
        let back: Vec<&Peer> = members.iter().rev().collect();
        let mut other = shares(33, &back);
        other.reverse();
        assert_eq!(shares(33, &forth), other);
    }

    #[test]
    fn should_leave_most_in_place_when_one_joins() {
        let members = members(4);
        let (before, after) = (
            shares(64, &members[..3].iter().collect::<Vec<_>>()),
            shares(64, &members.iter().collect::<Vec<_>>()),
        );
        let kept: usize = before
            .iter()
            .zip(&after)
            .map(|(before, after)| {
                before
                    .iter()
                    .filter(|partition| after.contains(partition))
                    .count()
            })
            .sum();
        assert!(kept >= 32, "48 can stay, {kept} did");
    }

    /// The hash is part of what processes of different builds agree on.
    #[test]
    fn should_score_as_ever_when_hashed() {
        let topic = TopicName::parse("orders").unwrap();
        let member = &members(1)[0];
        assert_eq!(score(&topic, Partition::new(3), member), SCORE);
    }

    /// Computed apart from this code.
    const SCORE: u64 = 0xa7d2_e53d_2f3e_8ae6;
}
