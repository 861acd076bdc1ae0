//! Sessions against each other, in orders that are chosen and not met by chance.
//!
//! Here the inbox, in every order in which the steps of two or three sessions can follow each other.
//!
//! A step that would have to wait for an open transaction is told so after a few milliseconds, so that any order can be
//! played one step after the other. After each order everything that is left is worked off, and the books must balance:
//! nothing was marked past an earlier parked message of its key, nothing is left behind a head that has gone, and every
//! message and every operation took effect once.

#[path = "interleavings/given_up.rs"]
mod given_up;
#[path = "interleavings/log.rs"]
mod log;
#[path = "interleavings/outsiders.rs"]
mod outsiders;
#[path = "interleavings/overlaps.rs"]
mod overlaps;
#[path = "interleavings/pause.rs"]
pub(crate) mod pause;
#[path = "interleavings/play.rs"]
mod play;
#[path = "interleavings/steps.rs"]
mod steps;

use play::{Scenario, Step};

use Step::{Abandon, Admit, Begin, Bury, Claim, Commit, Finish, Mark, ParkBehind, ParkFailed, Rollback};

// Messages 0, 1 and 2 are of one key; 3, 4 and 5 ask for one operation, without a key.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_keep_the_order_of_a_key_when_a_head_ends_in_any_order() {
    let head = || vec![ParkFailed(0), Claim];
    Scenario::play_all(vec![
        Scenario::of(
            head(),
            [
                vec![Begin, Mark(0), Commit],
                vec![ParkBehind(1)],
                vec![Claim, Claim],
            ],
        ),
        Scenario::of(
            head(),
            [
                vec![Begin, Mark(0), Rollback],
                vec![ParkBehind(1)],
                vec![Claim, Claim],
            ],
        ),
        Scenario::of(
            head(),
            [vec![Finish(0)], vec![ParkBehind(1), Claim], vec![ParkBehind(2)]],
        ),
        Scenario::of(
            head(),
            [
                vec![Bury(0)],
                vec![ParkBehind(1), Claim],
                vec![Begin, Mark(2), Commit],
            ],
        ),
        Scenario::of(
            head(),
            [
                vec![Abandon(0), Claim],
                vec![ParkBehind(1)],
                vec![Begin, Mark(0), Rollback],
            ],
        ),
        Scenario::of(
            vec![ParkFailed(0), ParkBehind(1), Claim],
            [
                vec![Begin, Mark(0), Mark(1), Commit],
                vec![ParkBehind(2), Claim],
                vec![],
            ],
        ),
        Scenario::of(
            vec![ParkFailed(0), ParkBehind(1), Claim],
            [
                vec![Begin, Mark(0), Commit],
                vec![Abandon(1), Claim],
                vec![Finish(1)],
            ],
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_mark_nothing_past_a_parked_message_when_it_is_parked_in_any_order() {
    Scenario::play_all(vec![
        Scenario::of(
            vec![],
            [
                vec![Begin, Mark(1), Commit],
                vec![ParkFailed(0)],
                vec![Claim, Finish(0)],
            ],
        ),
        Scenario::of(
            vec![],
            [
                vec![Begin, Mark(1), Rollback],
                vec![ParkFailed(0)],
                vec![Claim, Bury(0)],
            ],
        ),
        Scenario::of(
            vec![Admit(0), Admit(1)],
            [
                vec![Begin, Mark(1), Commit],
                vec![ParkFailed(0), Claim],
                vec![ParkBehind(2)],
            ],
        ),
        Scenario::of(
            vec![Admit(0)],
            [
                vec![Begin, Mark(0), Commit],
                vec![ParkFailed(0)],
                vec![Begin, Mark(1), Commit],
            ],
        ),
        Scenario::of(
            vec![],
            [
                vec![ParkFailed(0), Claim],
                vec![ParkFailed(1), Claim],
                vec![ParkFailed(2)],
            ],
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_take_effect_once_when_sessions_have_one_message_in_any_order() {
    let marks = |end: Step| vec![Begin, Mark(0), end];
    Scenario::play_all(vec![
        Scenario::of(vec![], [marks(Commit), marks(Commit), vec![Admit(0)]]),
        Scenario::of(vec![], [marks(Rollback), marks(Commit), vec![ParkFailed(0)]]),
        Scenario::of(vec![], [marks(Commit), vec![Admit(0), Finish(0)], vec![Bury(0)]]),
        Scenario::of(
            vec![Admit(0)],
            [marks(Commit), marks(Commit), vec![ParkFailed(0), Claim]],
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_have_one_reservation_when_sessions_have_one_operation_in_any_order() {
    let marks = |n: usize, end: Step| vec![Begin, Mark(n), end];
    Scenario::play_all(vec![
        Scenario::of(
            vec![],
            [marks(3, Commit), marks(4, Commit), vec![ParkFailed(5), Claim]],
        ),
        Scenario::of(
            vec![],
            [
                marks(3, Rollback),
                vec![Admit(4), Finish(4)],
                vec![ParkBehind(5), Claim],
            ],
        ),
        Scenario::of(
            vec![],
            [
                marks(3, Commit),
                vec![Admit(4), Finish(4)],
                vec![ParkBehind(5), Claim],
            ],
        ),
        Scenario::of(
            vec![Admit(3)],
            [marks(3, Commit), vec![ParkBehind(4), Claim], vec![ParkFailed(5)]],
        ),
        Scenario::of(
            vec![Admit(3)],
            [
                marks(3, Rollback),
                vec![ParkBehind(4), Claim],
                vec![Bury(3), Claim],
            ],
        ),
        Scenario::of(
            vec![ParkFailed(3), ParkFailed(4), Claim],
            [marks(3, Commit), vec![Claim, Finish(4)], vec![Abandon(3)]],
        ),
    ])
    .await;
}

/// What a checker does not notice it does not check.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_be_noticed_when_the_inbox_is_broken() {
    let head = || {
        let sessions = [vec![Begin, Mark(0), Commit], vec![ParkBehind(1)], vec![Claim]];
        vec![Scenario::of(vec![ParkFailed(0), Claim], sessions)]
    };
    let parked = || {
        let sessions = [vec![Begin, Mark(1), Commit], vec![ParkFailed(0)], vec![]];
        vec![Scenario::of(vec![], sessions)]
    };
    let run = || {
        let sessions = [vec![Begin, Mark(1), Commit], vec![Finish(0)], vec![]];
        vec![Scenario::of(vec![ParkFailed(0), ParkBehind(1), Claim], sessions)]
    };
    let operation = || {
        let sessions = [vec![Begin, Mark(3), Commit], vec![Begin, Mark(4), Commit], vec![]];
        vec![Scenario::of(vec![], sessions)]
    };
    let waiting = || {
        let sessions = [vec![Begin, Mark(3), Commit], vec![ParkBehind(4), Claim], vec![]];
        vec![Scenario::of(vec![Admit(3)], sessions)]
    };
    for (function, from, to, scenarios, noticed) in [
        // A head that goes leaves no sign.
        (
            "inbox_end_one",
            "i.place is not null then 3 end",
            "i.place is not null then null::smallint end",
            head(),
            "stranded",
        ),
        // A mark does not look at its key, without a hold and with one.
        (
            "inbox_mark",
            "and i.key_hash = a.hash",
            "and false",
            parked(),
            "marked past",
        ),
        (
            "inbox_end_one",
            "r.key_hash is not null and",
            "false and",
            run(),
            "marked past",
        ),
        // A mark reserves nothing.
        (
            "inbox_mark",
            "if ks is not null then",
            "if false then",
            operation(),
            "times",
        ),
        // Nobody looks at what waits for an operation.
        (
            "inbox_settle",
            "while k is not null loop",
            "while false loop",
            waiting(),
            "stranded",
        ),
    ] {
        let said = Scenario::play_broken(function, from, to, scenarios).await;
        assert!(
            said.is_empty() || said.contains(noticed),
            "{function} without {from:?}: {said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_strand_nothing_when_sessions_race() {
    play::race(300).await;
}
