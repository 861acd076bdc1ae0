//! Reading what is wanted.

use std::{collections::BTreeSet, time::Duration};

use headless_abstractions::{ControlChange, ControlVersion, Cursor, ErrorKind};

use super::operator::{ORDERS, Operator, change, group, paused};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        AgeForgotten, ControlUnchecked, CursorSkips, OneControlPage, PulseHidesChanges, RevisionAhead,
        RevisionOfFirst,
    },
    outbox::node::outlast_lease,
    wait::within,
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_rise_with_each_change_when_the_revision_is_read,
            "the revision is the version of the latest change, of whichever service"
        )
        .catching(&[RevisionOfFirst, RevisionAhead]),
        case!(
            should_show_every_change_up_to_the_revision_when_many_change_at_once,
            "who lists after reading the revision sees every change up to it: none appears late"
        )
        .catching(&[RevisionAhead]),
        case!(
            should_show_the_revision_in_the_pulse_when_it_changes,
            "the pulse has the revision, so that one question tells an idle node of changes too"
        )
        .catching(&[PulseHidesChanges]),
        case!(
            should_list_each_subject_once_when_it_takes_several_pages,
            "pages hold each subject once, also while others change"
        )
        .catching(&[CursorSkips, OneControlPage]),
        case!(
            should_say_how_long_ago_it_was_changed_when_time_has_passed,
            "the age of a change is that of the latest, by the store's clock"
        )
        .catching(&[AgeForgotten]),
        case!(
            should_refuse_to_list_when_a_limit_or_a_cursor_is_malformed,
            "limits out of range and foreign cursors are Invalid"
        )
        .catching(&[ControlUnchecked]),
    ]
}

async fn should_rise_with_each_change_when_the_revision_is_read<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let (operator, other) = (Operator::join(cx).await?, Operator::join(cx).await?);
    ensure_eq!(
        operator.control.revision().await?,
        ControlVersion::NONE,
        "before the first change"
    );
    for (service, name) in [(ORDERS, "a"), ("elsewhere", "a"), (ORDERS, "b")] {
        let change = ControlChange::new(service, group(name)?, paused(), "ada")?;
        let stored = operator.stored(&change).await?;
        ensure_eq!(
            other.control.revision().await?,
            stored,
            "after {name} of {service}"
        );
    }
    Ok(())
}

async fn should_show_every_change_up_to_the_revision_when_many_change_at_once<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    const EACH: usize = 20;
    let reader = Operator::join(cx).await?;
    let mut operators = Vec::new();
    for _ in 0..4 {
        operators.push(Operator::join(cx).await?);
    }
    let writing = operators.iter().enumerate().map(async |(number, operator)| {
        let mut stored = Vec::new();
        for n in 0..EACH {
            stored.push(
                operator
                    .stored(&change(&group(&format!("g{number}-{n}"))?, paused())?)
                    .await?,
            );
        }
        CaseResult::Ok(stored)
    });
    let reading = async {
        let mut looks = Vec::new();
        loop {
            let revision = reader.control.revision().await?;
            let seen: BTreeSet<_> = reader
                .entries()
                .await?
                .into_iter()
                .map(|entry| entry.version)
                .collect();
            let is_last = seen.len() == 4 * EACH;
            looks.push((revision, seen));
            if is_last {
                return CaseResult::Ok(looks);
            }
        }
    };
    let (stored, looks) = futures::join!(futures::future::try_join_all(writing), reading);
    let stored: BTreeSet<ControlVersion> = stored?.into_iter().flatten().collect();
    ensure_eq!(stored.len(), 4 * EACH, "the versions");
    for (revision, seen) in looks? {
        let missed: Vec<_> = stored
            .iter()
            .filter(|version| **version <= revision && !seen.contains(version))
            .collect();
        ensure!(
            missed.is_empty(),
            "a list after revision {revision} lacks {missed:?}"
        );
        ensure!(
            revision == ControlVersion::NONE || stored.contains(&revision),
            "revision {revision} is that of no change"
        );
    }
    Ok(())
}

async fn should_show_the_revision_in_the_pulse_when_it_changes<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let (operator, idle) = (Operator::join(cx).await?, Operator::join(cx).await?);
    ensure_eq!(
        idle.node.pulse.pulse().await?.control,
        ControlVersion::NONE,
        "the pulse before the first change"
    );
    for (service, name) in [(ORDERS, "a"), ("elsewhere", "a")] {
        let change = ControlChange::new(service, group(name)?, paused(), "ada")?;
        let stored = operator.stored(&change).await?;
        // The hint may come or not; whichever it is, the pulse after it knows.
        within(F::PATIENCE, "a wait", idle.node.pulse.wait_ready(cx.lease())).await??;
        ensure_eq!(
            idle.node.pulse.pulse().await?.control,
            stored,
            "the pulse after {name} of {service}"
        );
        operator.refused(&change).await?;
        ensure_eq!(
            idle.node.pulse.pulse().await?.control,
            stored,
            "the pulse after a conflict"
        );
    }
    Ok(())
}

async fn should_list_each_subject_once_when_it_takes_several_pages<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let operator = Operator::join(cx).await?;
    let mut wanted = BTreeSet::new();
    let mut first = ControlVersion::NONE;
    for name in ["d", "a", "c", "e", "b"] {
        let version = operator.stored(&change(&group(name)?, paused())?).await?;
        wanted.insert(group(name)?);
        if name == "a" {
            first = version;
        }
    }
    operator
        .stored(&ControlChange::new("elsewhere", group("a")?, paused(), "ada")?)
        .await?;
    let mut listed = Vec::new();
    let mut after = None;
    for _ in 0..wanted.len() {
        let page = operator.control.list(ORDERS, after.as_ref(), 2).await?;
        ensure!(page.items.len() <= 2, "a page of {} rows", page.items.len());
        listed.extend(page.items.into_iter().map(|entry| entry.subject));
        // What changes meanwhile moves to no other page.
        first = operator
            .stored(&change(&group("a")?, paused())?.with_expected(first))
            .await?;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    ensure_eq!(
        listed.len(),
        wanted.len(),
        "the subjects of all pages, {listed:?}"
    );
    ensure_eq!(
        listed.into_iter().collect::<BTreeSet<_>>(),
        wanted,
        "the subjects of all pages"
    );
    Ok(())
}

async fn should_say_how_long_ago_it_was_changed_when_time_has_passed<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let operator = Operator::join(cx).await?;
    let billing = group("billing")?;
    let first = operator.stored(&change(&billing, paused())?).await?;
    outlast_lease(cx).await;
    let ago = operator.entries().await?[0].changed;
    ensure!(
        ago >= cx.lease(),
        "changed {ago:?} ago, it was at least {:?}",
        cx.lease()
    );
    let late = change(&billing, paused())?;
    let met = operator.refused(&late).await?.map(|entry| entry.changed);
    ensure!(
        met.is_some_and(|ago| ago >= cx.lease()),
        "a conflict with what was changed {met:?} ago"
    );
    operator.stored(&late.with_expected(first)).await?;
    let again = operator.entries().await?[0].changed;
    ensure!(
        again < ago && again < Duration::from_mins(1),
        "changed {again:?} ago, just now"
    );
    Ok(())
}

async fn should_refuse_to_list_when_a_limit_or_a_cursor_is_malformed<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let operator = Operator::join(cx).await?;
    operator.stored(&change(&group("billing")?, paused())?).await?;
    let foreign = Cursor::new("nobody's");
    for (after, limit) in [(None, 0), (None, 1_001), (Some(&foreign), 10)] {
        let refused = operator.control.list(ORDERS, after, limit).await;
        let kind = refused.as_ref().err().map(headless_abstractions::Error::kind);
        ensure_eq!(kind, Some(ErrorKind::Invalid), "list with {after:?} and {limit}");
    }
    Ok(())
}
