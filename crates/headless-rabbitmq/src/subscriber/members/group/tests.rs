//! When a member has something to do for its group.

use super::*;
use crate::subscriber::{members::TALK, state::far};

fn group(now: Moment, round: Option<Round>) -> Group {
    Group {
        has_partitions: true,
        beat: Duration::from_millis(250),
        is_in: true,
        is_settled: false,
        peers: BTreeMap::new(),
        share: None,
        round,
        next_beat: far(now, Duration::from_millis(250)),
        untold: None,
        mute_until: now,
    }
}

#[test]
fn should_wait_for_the_end_of_a_round_when_a_beat_would_come_before() {
    let now = clock::now();
    let until = far(now, ROUND);
    let mut group = group(
        now,
        Some(Round {
            expected: 1,
            heard: BTreeSet::new(),
            until,
        }),
    );
    assert_eq!(group.next_due(), Some(until));
    group.end_round(now);
    assert_eq!(group.next_due(), Some(until));
    group.end_round(until);
    assert_eq!(group.next_due(), Some(group.next_beat));
}

#[test]
fn should_have_nothing_to_do_when_it_is_not_among_the_members() {
    let mut group = group(clock::now(), None);
    assert_eq!(group.next_due(), Some(group.next_beat));
    group.forget();
    assert_eq!(group.next_due(), None);
}

#[test]
fn should_try_again_when_the_group_could_not_be_told_that_it_is_out() {
    let now = clock::now();
    let mut group = group(now, None);
    group.forget();
    group.untold = Some(far(now, TALK));
    assert_eq!(group.next_due(), Some(far(now, TALK)));
}
