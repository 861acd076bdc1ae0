//! Dead letters counted by what they died of, and found by it.

use headless_abstractions::{
    DeadLetter, DeadLetterFilter, DeadLetterTally, ErrorKind, FailureCause, Hold, Origin, Redrive, Result,
    Store,
};

use super::worker::Worker;
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq, fail},
    cx::{Cx, group},
    fixture::StoreFixture,
    mutation::Mutation::{FilterIgnored, PageUnchecked, TallyCausesAlone, TallyUnsorted, TallyWholeErrors},
    outbox::{
        node::Node,
        samples::{failure, failure_of, id, keyed, message, number, owner},
    },
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_count_dead_letters_by_what_they_died_of_when_tallied,
            "a tally counts dead letters by origin, topic, cause and shape of the error, the most frequent first"
        )
        .catching(&[FilterIgnored, TallyUnsorted, TallyWholeErrors, TallyCausesAlone]),
        case!(
            should_refuse_a_tally_when_its_limit_is_out_of_range,
            "a tally has a limit of 1 to 1 000"
        )
        .catching(&[PageUnchecked]),
        case!(
            should_find_dead_letters_when_filtered_by_key_message_or_shape,
            "dead letters are found by key, by message, by the shape of their error, and by one like them"
        )
        .catching(&[FilterIgnored]),
    ]
}

/// The errors that billing dies of, in this order.
const ERRORS: [&str; 6] = [
    "customer 1 is unknown",
    "10.0.0.1:5432: connection refused",
    "customer 22 is unknown",
    "10.0.0.17:5432: connection refused",
    "customer order-7_b is unknown",
    "Zürich 東京 is unknown",
];

/// Six that billing could not handle, and one of shipping.
async fn bury_all<S: Store>(node: &Node<S>) -> CaseResult {
    let billing = Worker::of(node, "billing", owner(1));
    for (n, error) in (1..).zip(ERRORS) {
        billing
            .bury(
                &keyed(n, "a"),
                Hold::Absent,
                vec![failure("at first"), failure(error)],
            )
            .await?;
    }
    let shipping = Worker::of(node, "shipping", owner(1));
    let slow = vec![failure_of(FailureCause::Timeout, "customer 9 is unknown")];
    shipping.bury(&keyed(1, "a"), Hold::Absent, slow).await?;
    Ok(())
}

fn shown(tally: &DeadLetterTally) -> (&str, u64) {
    (&tally.error, tally.count)
}

async fn letters<S: Store>(node: &Node<S>, filter: DeadLetterFilter) -> Result<Vec<DeadLetter>> {
    Ok(node.letter_queries.list(&filter, None, 100).await?.items)
}

async fn should_count_dead_letters_by_what_they_died_of_when_tallied<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    ensure!(
        node.letter_queries
            .tally(&DeadLetterFilter::open(), 10)
            .await?
            .is_empty(),
        "the tally of none"
    );
    bury_all(&node).await?;
    let of_billing = || DeadLetterFilter::open().with_origin(Origin::Group(group("billing")));
    let all = node
        .letter_queries
        .tally(&DeadLetterFilter::open(), 1_000)
        .await?;
    ensure_eq!(all.len(), 4, "kinds of all groups");
    let tallies = node.letter_queries.tally(&of_billing(), 10).await?;
    ensure_eq!(
        tallies.iter().map(shown).collect::<Vec<_>>(),
        vec![
            ("customer # is unknown", 3),
            ("#.#.#.#:#: connection refused", 2),
            ("Zürich 東京 is unknown", 1),
        ],
        "kinds of one group, the most frequent first"
    );
    let known = letters(&node, of_billing().with_error_containing("customer")).await?;
    let customers = &tallies[0];
    ensure_eq!(
        (&customers.origin, &customers.topic, customers.cause),
        (&known[0].origin, &known[0].message.topic, FailureCause::Error),
        "what the first kind shares"
    );
    ensure_eq!(
        (customers.first, customers.last, customers.sample),
        (known[0].buried_at, known[2].buried_at, known[2].id),
        "when the first and the last of a kind died, and the last one"
    );
    let most = node.letter_queries.tally(&of_billing(), 1).await?;
    ensure_eq!(most, tallies[..1].to_vec(), "the most frequent kind alone");

    // What is closed is over, unless it is asked for; of equals the one that died first comes first.
    node.letters
        .redrive(&Redrive::new(vec![known[0].id], "ada"))
        .await?;
    let tallies = node.letter_queries.tally(&of_billing(), 10).await?;
    ensure_eq!(
        tallies.iter().map(shown).collect::<Vec<_>>(),
        vec![
            ("#.#.#.#:#: connection refused", 2),
            ("customer # is unknown", 2),
            ("Zürich 東京 is unknown", 1),
        ],
        "kinds of what is open still"
    );
    let closed = node.letter_queries.tally(&of_billing().with_closed(), 10).await?;
    ensure_eq!(
        closed.first().map(shown),
        Some(("customer # is unknown", 3)),
        "the first kind, closed ones among it"
    );
    Ok(())
}

async fn should_refuse_a_tally_when_its_limit_is_out_of_range<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    bury_all(&node).await?;
    for limit in [0, 1_001] {
        match node.letter_queries.tally(&DeadLetterFilter::open(), limit).await {
            Ok(tallies) => fail!("a limit of {limit} was answered with {} kinds", tallies.len()),
            Err(error) => ensure_eq!(error.kind(), ErrorKind::Invalid, "the error for limit {limit}"),
        }
    }
    Ok(())
}

async fn should_find_dead_letters_when_filtered_by_key_message_or_shape<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    bury_all(&node).await?;
    let billing = Worker::of(&node, "billing", owner(1));
    for other in [keyed(8, "b"), message(9)] {
        billing
            .bury(&other, Hold::Absent, vec![failure("customer is unknown")])
            .await?;
    }
    let found = async |filter: DeadLetterFilter| -> Result<Vec<u64>> {
        let letters = letters(&node, filter).await?;
        Ok(letters.iter().map(|letter| number(letter.message.id)).collect())
    };
    let open = DeadLetterFilter::open;
    let Some(key) = keyed(8, "b").key else {
        fail!("a keyed message has no key");
    };
    ensure_eq!(found(open().with_key(key)).await?, vec![8], "those of one key");
    ensure_eq!(
        found(open().with_message(id(1))).await?,
        vec![1, 1],
        "those of one message, which died in two groups"
    );
    ensure_eq!(
        found(open().with_error_shape("customer # is unknown")).await?,
        vec![1, 3, 5, 1],
        "those whose error has one shape"
    );
    ensure_eq!(
        found(open().with_error_shape("customer 1 is unknown")).await?,
        Vec::<u64>::new(),
        "those whose error has a shape that none can have"
    );
    let Some(first) = letters(&node, open()).await?.into_iter().next() else {
        fail!("there is no dead letter");
    };
    ensure_eq!(
        found(DeadLetterFilter::like(&first)).await?,
        vec![1, 3, 5],
        "those like the first"
    );
    ensure_eq!(
        found(DeadLetterFilter::like(&first).with_message(id(3))).await?,
        vec![3],
        "those like the first and of one message"
    );
    Ok(())
}
