//! Changing what is wanted.

use headless_abstractions::{
    ControlChange, ControlEntry, ControlPut, ControlVersion, DesiredState, ErrorKind, GroupName, TopicName,
};

use super::operator::{ORDERS, Operator, change, concurrency, group, paused};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq, fail},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        ConflictBlind, ConflictCounts, ControlForgotten, ControlUnbounded, EntriesShared, ExpectedIgnored,
        RemovalForgotten, TopicForgotten, VersionBeginsAnew, VersionStands, WhoForgotten,
    },
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_be_seen_by_others_when_it_is_stored,
            "what one process stores another one reads: the state, its version, and who asked"
        )
        .catching(&[ControlForgotten, WhoForgotten]),
        case!(
            should_be_refused_when_somebody_was_faster,
            "a change that expects another version changes nothing, and is answered what is there"
        )
        .catching(&[ExpectedIgnored, ConflictBlind, ConflictCounts]),
        case!(
            should_be_refused_when_there_is_nothing_of_the_expected_version,
            "an expected version of a subject that was never changed is a conflict with nothing"
        )
        .catching(&[ExpectedIgnored]),
        case!(
            should_store_one_when_several_expect_the_same_version,
            "of several changes at once that expect one version, one is stored and the others meet it"
        )
        .catching(&[ExpectedIgnored]),
        case!(
            should_get_a_greater_version_when_it_changes,
            "each change of a subject has a greater version, which the next one must expect"
        )
        .catching(&[VersionStands]),
        case!(
            should_want_nothing_and_keep_its_versions_when_it_is_taken_back,
            "what is taken back is shown as such, and its versions go on"
        )
        .catching(&[RemovalForgotten, VersionBeginsAnew]),
        case!(
            should_keep_apart_what_has_other_names_when_services_and_topics_share_one,
            "the same group of another service, and one topic of it, are other subjects"
        )
        .catching(&[EntriesShared, TopicForgotten]),
        case!(
            should_refuse_another_subject_when_its_service_has_as_many_as_it_may,
            "a service has a bounded number of subjects, and those that it has can still be changed"
        )
        .catching(&[ControlUnbounded]),
    ]
}

async fn should_be_seen_by_others_when_it_is_stored<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let (operator, other) = (Operator::join(cx).await?, Operator::join(cx).await?);
    let wanted = paused().with_concurrency(concurrency(DesiredState::MOST_CONCURRENCY)?.concurrency)?;
    let by = "Zoë <zoe@example.org> 🦀";
    let change = ControlChange::new(ORDERS, group("billing")?, wanted, by)?;
    let version = operator.stored(&change).await?;
    let entries = other.entries().await?;
    ensure_eq!(entries.len(), 1, "entries that another process sees");
    let entry = &entries[0];
    ensure_eq!(entry.subject, group("billing")?, "its subject");
    ensure_eq!(entry.desired, wanted, "what is wanted");
    ensure_eq!(entry.version, version, "its version");
    ensure_eq!((&*entry.service, &*entry.changed_by), (ORDERS, by), "its labels");
    Ok(())
}

async fn should_be_refused_when_somebody_was_faster<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let (operator, faster) = (Operator::join(cx).await?, Operator::join(cx).await?);
    let billing = group("billing")?;
    let first = faster.stored(&change(&billing, paused())?).await?;
    let before = operator.control.revision().await?;
    let late = change(&billing, concurrency(3)?)?;
    let there = operator.refused(&late).await?;
    let told = there.map(|entry| (entry.version, entry.desired));
    ensure_eq!(told, Some((first, paused())), "what it meets");
    let wrong = late.clone().with_expected(ControlVersion::new(first.get() + 1));
    operator.refused(&wrong).await?;
    ensure_eq!(operator.entries().await?[0].desired, paused(), "what is wanted");
    ensure_eq!(operator.control.revision().await?, before, "the revision");
    operator.stored(&late.with_expected(first)).await?;
    ensure_eq!(
        operator.entries().await?[0].desired,
        concurrency(3)?,
        "what is wanted"
    );
    Ok(())
}

async fn should_be_refused_when_there_is_nothing_of_the_expected_version<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let operator = Operator::join(cx).await?;
    for expected in [1, u64::MAX] {
        let change = change(&group("billing")?, paused())?.with_expected(ControlVersion::new(expected));
        ensure_eq!(operator.refused(&change).await?, None, "what it meets");
    }
    ensure_eq!(operator.entries().await?, vec![], "the entries");
    Ok(())
}

async fn should_store_one_when_several_expect_the_same_version<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let mut operators = Vec::new();
    for _ in 0..4 {
        operators.push(Operator::join(cx).await?);
    }
    let mut expected = ControlVersion::NONE;
    for round in 0..5 {
        let mut changes = Vec::new();
        for n in 1..=4 {
            changes.push(change(&group("billing")?, concurrency(10 * round + n)?)?.with_expected(expected));
        }
        let puts = operators
            .iter()
            .zip(&changes)
            .map(|(operator, change)| operator.control.put(change));
        let mut stored = Vec::new();
        let mut met = Vec::new();
        for (put, change) in futures::future::join_all(puts).await.into_iter().zip(&changes) {
            match put? {
                ControlPut::Stored(version) => stored.push((version, change.desired)),
                ControlPut::Conflict(Some(there)) => met.push((there.version, there.desired)),
                ControlPut::Conflict(None) => fail!("round {round}: a conflict with nothing"),
            }
        }
        ensure_eq!(
            stored.len(),
            1,
            "round {round}: those that were stored, {stored:?}"
        );
        ensure!(
            met.iter().all(|there| *there == stored[0]),
            "round {round}: {met:?} met, {stored:?} stored"
        );
        expected = stored[0].0;
    }
    Ok(())
}

async fn should_get_a_greater_version_when_it_changes<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let operator = Operator::join(cx).await?;
    let billing = group("billing")?;
    let mut version = ControlVersion::NONE;
    for desired in [paused(), paused(), DesiredState::nothing(), concurrency(1)?] {
        let next = operator
            .stored(&change(&billing, desired)?.with_expected(version))
            .await?;
        ensure!(next > version, "version {next} follows {version}");
        let entries = operator.entries().await?;
        let shown: Vec<_> = entries
            .iter()
            .map(|entry| (entry.version, entry.desired))
            .collect();
        ensure_eq!(shown, vec![(next, desired)], "the entries");
        version = next;
    }
    Ok(())
}

async fn should_want_nothing_and_keep_its_versions_when_it_is_taken_back<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let (operator, other) = (Operator::join(cx).await?, Operator::join(cx).await?);
    let billing = group("billing")?;
    let first = operator.stored(&change(&billing, paused())?).await?;
    let nothing = change(&billing, DesiredState::nothing())?;
    let back = operator.stored(&nothing.clone().with_expected(first)).await?;
    let shown: Vec<_> = other
        .entries()
        .await?
        .into_iter()
        .map(|entry| (entry.version, entry.desired))
        .collect();
    ensure_eq!(shown, vec![(back, DesiredState::nothing())], "what is shown");
    // Who has seen it neither before nor after its time must not think that nothing has happened.
    let there = other.refused(&nothing).await?;
    ensure_eq!(
        there.map(|entry| entry.version),
        Some(back),
        "what a first change meets"
    );
    let again = other
        .stored(&change(&billing, paused())?.with_expected(back))
        .await?;
    ensure!(again > back, "version {again} follows {back}");
    Ok(())
}

async fn should_keep_apart_what_has_other_names_when_services_and_topics_share_one<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let operator = Operator::join(cx).await?;
    let billing = group("billing")?;
    let on_topic = headless_abstractions::ControlSubject::group_on(
        GroupName::parse("billing")?,
        TopicName::parse("placed")?,
    );
    let nothing = DesiredState::nothing();
    operator
        .stored(&ControlChange::new("orders-eu", billing.clone(), nothing, "ada")?)
        .await?;
    let topic = operator.stored(&change(&on_topic, paused())?).await?;
    let whole = operator.stored(&change(&billing, concurrency(2)?)?).await?;
    let mut shown: Vec<ControlEntry> = operator.entries().await?;
    shown.sort_by_key(|entry| entry.version);
    let shown: Vec<_> = shown
        .into_iter()
        .map(|entry| (entry.subject, entry.version, entry.desired))
        .collect();
    let wanted = vec![(on_topic, topic, paused()), (billing, whole, concurrency(2)?)];
    ensure_eq!(shown, wanted, "the entries of the orders");
    let other = operator.control.list("orders-eu", None, 10).await?.items;
    let other: Vec<_> = other
        .into_iter()
        .map(|entry| (entry.service, entry.desired))
        .collect();
    ensure_eq!(
        other,
        vec![("orders-eu".into(), nothing)],
        "those of the other service"
    );
    let none = operator.control.list("order", None, 10).await?.items;
    ensure_eq!(none, vec![], "those of a service without any");
    Ok(())
}

async fn should_refuse_another_subject_when_its_service_has_as_many_as_it_may<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let operator = Operator::join(cx).await?;
    let mut last = ControlVersion::NONE;
    for n in 0..ControlEntry::MOST {
        last = operator
            .stored(&change(&group(&format!("g{n}"))?, paused())?)
            .await?;
    }
    let one_more = operator
        .control
        .put(&change(&group("one-more")?, paused())?)
        .await;
    match one_more {
        Err(error) => {
            ensure_eq!(error.kind(), ErrorKind::TooLarge, "the kind of {error}");
            ensure!(error.to_string().contains("1000"), "{error} names no limit");
        }
        Ok(stored) => fail!("one more is answered {stored:?}"),
    }
    ensure_eq!(operator.control.revision().await?, last, "the revision");
    let of_last = group(&format!("g{}", ControlEntry::MOST - 1))?;
    operator
        .stored(&change(&of_last, DesiredState::nothing())?.with_expected(last))
        .await?;
    operator
        .stored(&ControlChange::new("elsewhere", group("g")?, paused(), "ada")?)
        .await?;
    Ok(())
}
