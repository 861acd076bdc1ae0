//! The state machine of a row, whole: every state, every hold, every call, compared with the table in the docs of
//! [`InboxStore`](headless_abstractions::InboxStore).

use std::time::Duration;

use headless_abstractions::{
    Admission, AttemptUse, ClaimParked, Epoch, Hold, InboxState, Marked, Message, Owner, Parked, Store,
};

use super::worker::{Worker, claim_of};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq, fail},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        AdmitIgnoresLease, BuryForgetsLetter, BusyWithoutTime, DropEpochCheck, DropEpochOnRenew,
        DropOwnerCheck, ForgetRounds, HideLost, LateIsLost, LeaseForever, MarkAtCommit, MarkForgotten,
        RenewForgotten, SkipDedupe, TerminalMovable,
    },
    outbox::{
        node::{Node, outlast_lease},
        samples::{LONG, failure, message, owner},
    },
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_answer_as_the_table_says_when_admitting,
            "an admission of a row in each state"
        )
        .catching(&[
            AdmitIgnoresLease,
            SkipDedupe,
            TerminalMovable,
            BusyWithoutTime,
            ForgetRounds,
            LeaseForever,
        ]),
        case!(
            should_answer_as_the_table_says_when_marking,
            "a mark of a row in each state, under each hold"
        )
        .catching(&[
            DropOwnerCheck,
            DropEpochCheck,
            LateIsLost,
            HideLost,
            SkipDedupe,
            TerminalMovable,
            MarkForgotten,
            BusyWithoutTime,
        ]),
        case!(
            should_answer_as_the_table_says_when_discarding,
            "a discard of a row in each state, under each hold"
        )
        .catching(&[DropOwnerCheck, DropEpochCheck, LateIsLost, HideLost]),
        case!(
            should_answer_as_the_table_says_when_burying,
            "a burial of a row in each state, under each hold"
        )
        .catching(&[DropOwnerCheck, DropEpochCheck, LateIsLost, BuryForgetsLetter]),
        case!(
            should_answer_as_the_table_says_when_parking,
            "a park of a row in each state, under each hold"
        )
        .catching(&[DropOwnerCheck, DropEpochCheck, LateIsLost, HideLost]),
        case!(
            should_answer_as_the_table_says_when_marking_in_a_transaction,
            "a mark within a transaction of a row in each state, under each hold"
        )
        .catching(&[
            DropOwnerCheck,
            DropEpochCheck,
            LateIsLost,
            MarkAtCommit,
            MarkForgotten,
            SkipDedupe,
        ]),
        case!(
            should_touch_running_rows_alone_when_renewing_or_releasing,
            "renewals and releases of a row in each state, under each hold"
        )
        .catching(&[
            DropOwnerCheck,
            DropEpochCheck,
            DropEpochOnRenew,
            HideLost,
            RenewForgotten,
        ]),
    ]
}

/// Whose row it is in all states that have an owner.
const HOLDER: Owner = owner(1);
const STRANGER: Owner = owner(2);

/// Where a row stands before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Absent,
    Processed,
    Dead,
    Discarded,
    Parked,
    Admitted,
    Claimed,
    AdmittedAndEnded,
    ClaimedAndEnded,
}

impl From {
    /// Those with a short lease last, so that it has not ended while the others are made.
    const ALL: [Self; 9] = [
        Self::Absent,
        Self::Processed,
        Self::Dead,
        Self::Discarded,
        Self::Parked,
        Self::Admitted,
        Self::Claimed,
        Self::AdmittedAndEnded,
        Self::ClaimedAndEnded,
    ];

    fn state(self) -> Option<InboxState> {
        match self {
            Self::Absent => None,
            Self::Processed => Some(InboxState::Processed),
            Self::Dead => Some(InboxState::Dead),
            Self::Discarded => Some(InboxState::Discarded),
            Self::Parked => Some(InboxState::Parked),
            Self::Admitted | Self::Claimed | Self::AdmittedAndEnded | Self::ClaimedAndEnded => {
                Some(InboxState::Running)
            }
        }
    }

    const fn is_running(self) -> bool {
        matches!(
            self,
            Self::Admitted | Self::Claimed | Self::AdmittedAndEnded | Self::ClaimedAndEnded
        )
    }

    const fn has_ended(self) -> bool {
        matches!(self, Self::AdmittedAndEnded | Self::ClaimedAndEnded)
    }
}

/// What the caller names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    /// That there is no row.
    Absent,
    /// The hold that is held, or was held last.
    Current,
    /// Its epoch, by another owner.
    OtherOwner,
    /// An earlier epoch of its owner.
    EarlierEpoch,
}

impl Named {
    const ALL: [Self; 4] = [Self::Absent, Self::Current, Self::OtherOwner, Self::EarlierEpoch];

    const fn hold(self, epoch: Epoch) -> Hold {
        match self {
            Self::Absent => Hold::Absent,
            Self::Current => Hold::Running { owner: HOLDER, epoch },
            Self::OtherOwner => Hold::Running {
                owner: STRANGER,
                epoch,
            },
            Self::EarlierEpoch => Hold::Running {
                owner: HOLDER,
                epoch: Epoch::new(epoch.get().saturating_sub(1)),
            },
        }
    }
}

/// A row in its state, and what is named of it.
struct Subject {
    from: From,
    named: Named,
    message: Message,
    hold: Hold,
}

/// One row for every state and hold; the short leases have ended when this returns.
async fn subjects<F: StoreFixture>(cx: &Cx<F>, node: &Node<F::Store>) -> CaseResult<Vec<Subject>> {
    let mut subjects = Vec::new();
    for from in From::ALL {
        for named in Named::ALL {
            let message = message(subjects.len() as u64);
            let epoch = bring(node, &message, from, cx.lease()).await?;
            let hold = named.hold(epoch);
            subjects.push(Subject {
                from,
                named,
                message,
                hold,
            });
        }
    }
    outlast_lease(cx).await;
    Ok(subjects)
}

/// Brings a message into this state, and answers with the epoch that it was last held with.
async fn bring<S: Store>(node: &Node<S>, message: &Message, to: From, short: Duration) -> CaseResult<Epoch> {
    let worker = Worker::new(node, HOLDER);
    match to {
        From::Absent => return Ok(Epoch::new(1)),
        From::Claimed | From::ClaimedAndEnded => {
            let parked = worker.park(message, Hold::Absent, Duration::ZERO).await?;
            ensure_eq!(parked, Parked::Now, "parking to be claimed");
            let lease = if to.has_ended() { short } else { LONG };
            let request = ClaimParked::new(HOLDER, worker.group.clone(), 1, lease);
            let rows = node.parked.claim(&request).await?;
            ensure!(
                rows.len() == 1 && rows[0].message.id == message.id,
                "the message that alone is due was not claimed, but {rows:?}"
            );
            return Ok(rows[0].claim.epoch);
        }
        _ => {}
    }
    let hold = worker
        .run_for(message, if to.has_ended() { short } else { LONG })
        .await?;
    let answer = match to {
        From::Processed => worker.mark(message, hold).await?,
        From::Discarded => worker.discard(message, hold).await?,
        From::Dead => worker.bury(message, hold, vec![failure("broken")]).await?,
        From::Parked => {
            let parked = worker.park(message, hold, LONG).await?;
            ensure_eq!(parked, Parked::Now, "parking for long");
            Marked::Now
        }
        _ => Marked::Now,
    };
    ensure_eq!(answer, Marked::Now, "bringing a row to {to:?}");
    Ok(claim_of(message, hold).epoch)
}

/// An answer without its figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Now,
    Already(InboxState),
    /// The lease lasts for a while.
    Busy,
    /// The lease has ended.
    BusyNoLonger,
    LeaseLost,
    Other,
}

impl std::convert::From<Marked> for Answer {
    fn from(marked: Marked) -> Self {
        match marked {
            Marked::Now => Self::Now,
            Marked::Already(state) => Self::Already(state),
            Marked::Busy { lease_left } if lease_left.is_zero() => Self::BusyNoLonger,
            Marked::Busy { lease_left } if lease_left > LONG => Self::Other,
            Marked::Busy { .. } => Self::Busy,
            Marked::LeaseLost => Self::LeaseLost,
            Marked::Behind => Self::Other,
        }
    }
}

impl std::convert::From<Parked> for Answer {
    fn from(parked: Parked) -> Self {
        match parked {
            Parked::Now => Self::Now,
            Parked::Already(state) => Self::Already(state),
            Parked::LeaseLost => Self::LeaseLost,
            Parked::KeyFree | Parked::Full => Self::Other,
        }
    }
}

/// What a mark, a discard or a burial may answer.
fn of_mark(from: From, named: Named) -> Vec<Answer> {
    match (from, named) {
        (From::Absent, Named::Absent) => vec![Answer::Now],
        (From::Processed | From::Dead | From::Discarded, _) | (From::Parked, Named::Absent) => {
            from.state().map(Answer::Already).into_iter().collect()
        }
        (From::Admitted | From::Claimed, Named::Absent) => vec![Answer::Busy],
        (From::AdmittedAndEnded, Named::Absent) => vec![Answer::BusyNoLonger],
        // Anyone may have parked it again by now, this call among them.
        (From::ClaimedAndEnded, Named::Absent) => {
            vec![Answer::BusyNoLonger, Answer::Already(InboxState::Parked)]
        }
        (from, Named::Current) if from.is_running() => vec![Answer::Now],
        _ => vec![Answer::LeaseLost],
    }
}

/// What a park may answer.
fn of_park(from: From, named: Named) -> Vec<Answer> {
    match (from, named) {
        (From::Absent, Named::Absent) => vec![Answer::Now],
        (From::Processed | From::Dead | From::Discarded | From::Parked, _) => {
            from.state().map(Answer::Already).into_iter().collect()
        }
        (From::ClaimedAndEnded, Named::Absent) => {
            vec![Answer::LeaseLost, Answer::Already(InboxState::Parked)]
        }
        (from, Named::Current) if from.is_running() => vec![Answer::Now],
        _ => vec![Answer::LeaseLost],
    }
}

/// Checks an answer, and that the row is where the answer says.
async fn check<S: Store>(
    node: &Node<S>,
    subject: &Subject,
    answer: Answer,
    allowed: &[Answer],
    target: InboxState,
) -> CaseResult {
    let Subject {
        from, named, message, ..
    } = subject;
    ensure!(
        allowed.contains(&answer),
        "a row that is {from:?}, naming {named:?}: got {answer:?}, expected {allowed:?}"
    );
    let now = Worker::new(node, HOLDER).state(message.id).await?;
    let reaped = *from == From::ClaimedAndEnded && now == Some(InboxState::Parked);
    let expected = if answer == Answer::Now {
        Some(target)
    } else {
        from.state()
    };
    ensure!(
        now == expected || (answer != Answer::Now && reaped),
        "a row that was {from:?}, naming {named:?}, answered {answer:?} and is now {now:?}"
    );
    Ok(())
}

async fn should_answer_as_the_table_says_when_admitting<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, STRANGER);
    for Subject { from, message, .. } in &subjects(cx, &node).await? {
        if *from == From::Absent {
            continue;
        }
        let before = worker.state(message.id).await?;
        let answer = worker.admit(message).await?;
        let fits = match (from, answer) {
            (From::AdmittedAndEnded, Admission::Run { epoch, rounds }) => {
                epoch > Epoch::new(1) && rounds == 2
            }
            (From::Admitted | From::Claimed, Admission::Busy { lease_left }) => {
                !lease_left.is_zero() && lease_left <= LONG
            }
            (From::ClaimedAndEnded, Admission::Settled(InboxState::Parked)) => true,
            (From::AdmittedAndEnded | From::Admitted | From::Claimed | From::ClaimedAndEnded, _) => false,
            (_, answer) => from.state().map(Admission::Settled) == Some(answer),
        };
        ensure!(
            fits,
            "a row that is {from:?} was answered with {answer:?} to an admission"
        );
        if *from != From::ClaimedAndEnded {
            ensure_eq!(
                worker.state(message.id).await?,
                before,
                "the state of a row that was {from:?}"
            );
        }
        // The same subject comes with every hold; an admission names none, and a second one finds the first.
        if *from == From::AdmittedAndEnded {
            let again = worker.admit(message).await?;
            ensure!(
                matches!(again, Admission::Busy { .. }),
                "a row that was taken over answered {again:?}"
            );
        }
    }
    let fresh = worker.admit(&message(1_000)).await?;
    let first = Admission::Run {
        epoch: Epoch::new(1),
        rounds: 1,
    };
    ensure_eq!(fresh, first, "the admission of a message that is new");
    Ok(())
}

async fn should_answer_as_the_table_says_when_marking<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, HOLDER);
    for subject in &subjects(cx, &node).await? {
        let answer = worker.mark(&subject.message, subject.hold).await?.into();
        let allowed = of_mark(subject.from, subject.named);
        check(&node, subject, answer, &allowed, InboxState::Processed).await?;
    }
    Ok(())
}

async fn should_answer_as_the_table_says_when_discarding<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, HOLDER);
    for subject in &subjects(cx, &node).await? {
        let answer = worker.discard(&subject.message, subject.hold).await?.into();
        let allowed = of_mark(subject.from, subject.named);
        check(&node, subject, answer, &allowed, InboxState::Discarded).await?;
    }
    Ok(())
}

async fn should_answer_as_the_table_says_when_burying<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, HOLDER);
    for subject in &subjects(cx, &node).await? {
        let broken = vec![failure("broken")];
        let answer = worker.bury(&subject.message, subject.hold, broken).await?.into();
        let allowed = of_mark(subject.from, subject.named);
        check(&node, subject, answer, &allowed, InboxState::Dead).await?;
    }
    Ok(())
}

async fn should_answer_as_the_table_says_when_parking<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, HOLDER);
    for subject in &subjects(cx, &node).await? {
        let answer = worker.park(&subject.message, subject.hold, LONG).await?.into();
        let allowed = of_park(subject.from, subject.named);
        check(&node, subject, answer, &allowed, InboxState::Parked).await?;
    }
    Ok(())
}

async fn should_answer_as_the_table_says_when_marking_in_a_transaction<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    use headless_abstractions::{OwnedTx, StoreTx, UnitOfWorkStore};

    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, HOLDER);
    for subject in &subjects(cx, &node).await? {
        let mut tx = node.store.begin().await?;
        let marks = [(worker.arrival(&subject.message), subject.hold)];
        let answer = Answer::from(tx.mark_processed(&marks).await?[0]);
        if answer == Answer::Now {
            Box::new(tx).commit().await?;
        } else {
            Box::new(tx).rollback().await?;
        }
        let allowed = of_mark(subject.from, subject.named);
        check(&node, subject, answer, &allowed, InboxState::Processed).await?;
    }
    Ok(())
}

async fn should_touch_running_rows_alone_when_renewing_or_releasing<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, HOLDER);
    for Subject {
        from,
        named,
        message,
        hold,
    } in &subjects(cx, &node).await?
    {
        let Hold::Running { owner, .. } = *hold else {
            continue;
        };
        let claims = [claim_of(message, *hold)];
        let held = from.is_running() && *named == Named::Current;
        let expected = if held { Vec::new() } else { claims.to_vec() };

        let renewed = node.inbox.renew(&worker.group, owner, &claims, LONG).await?;
        ensure_eq!(
            renewed.lost,
            expected,
            "renewing a row that is {from:?}, naming {named:?}"
        );
        if held {
            let answer = Worker::new(&node, STRANGER).admit(message).await?;
            ensure!(
                matches!(answer, Admission::Busy { .. }),
                "a row that was renewed answered {answer:?}"
            );
        }
        let released = node
            .inbox
            .release(&worker.group, owner, &claims, AttemptUse::Return)
            .await?;
        ensure_eq!(
            released.lost,
            expected,
            "releasing a row that is {from:?}, naming {named:?}"
        );
        let after = worker.state(message.id).await?;
        let expected = match from {
            From::Claimed | From::ClaimedAndEnded if held => Some(InboxState::Parked),
            _ => from.state(),
        };
        let reaped = *from == From::ClaimedAndEnded && after == Some(InboxState::Parked);
        ensure!(
            after == expected || reaped,
            "a row that was {from:?} is {after:?} after {named:?} released it"
        );
    }
    // None of these calls makes a row.
    if let Some(state) = worker.state(message(1_000).id).await? {
        fail!("there is a row in state {state:?} of a message that nobody has seen");
    }
    Ok(())
}
