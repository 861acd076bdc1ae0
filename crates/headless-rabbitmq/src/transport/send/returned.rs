//! Messages that came back: what is said of them, and of those whose confirms prove nothing.

use std::collections::BTreeSet;

use headless_abstractions::{Error, ErrorKind, Message, Sent};

use super::{
    Answers,
    plan::{Going, unattended},
    set,
};
use crate::registry::Known;

/// Takes back what was said to be accepted. A message that came back hangs on any confirm of its channel, also on one
/// that did not come: while something came back and a confirm is missing, no other confirm proves anything. (Each confirm
/// takes one with it, so that if none of them brought any, none had come back.)
pub(super) fn doubt(going: &[Going], answers: &mut Answers) {
    for Going { at, .. } in going {
        if matches!(answers.get(*at), Some(Some(Ok(_)))) {
            let unknown = Error::new(
                ErrorKind::Unavailable,
                "not all of the batch was confirmed, and the message may have come back; send it again",
            );
            set(answers, *at, Err(unknown.with_outcome_unknown()));
        }
    }
}

/// Answers for messages that came back, by what is there now, if that is known: another process may have required the
/// topic. Answers the places of those of which a queue is missing that the registry says is there.
pub(super) fn tell_returned(
    known: Option<&Known>,
    batch: &[Message],
    going: &[Going],
    returned: &BTreeSet<String>,
    answers: &mut Answers,
) -> BTreeSet<usize> {
    let mut missing = BTreeSet::new();
    for Going { at, .. } in going {
        let Some(message) = batch
            .get(*at)
            .filter(|message| returned.contains(&message.id.to_string()))
        else {
            continue;
        };
        let answer = match known {
            // "Unrouted" would be the end of a message that a group has a right to.
            Some(known) if known.is_attended(&message.topic) => {
                missing.insert(*at);
                Err(Error::new(
                    ErrorKind::Unavailable,
                    "the message came back: a queue of its topic is missing or down; if it was deleted, declare it again",
                ))
            }
            Some(known) if known.topic(&message.topic).is_some_and(|topic| topic.required) => {
                Err(unattended())
            }
            Some(_) => Ok(Sent::Unrouted),
            None => Err(Error::new(
                ErrorKind::Unavailable,
                "the message came back, and there was no time to ask why; send it again",
            )),
        };
        set(answers, *at, answer);
    }
    missing
}

#[cfg(test)]
mod tests {
    use headless_abstractions::{GroupName, MessageId, TopicName, TopicOrder};

    use super::*;
    use crate::{error::overdue, registry::KnownTopic};

    fn orders() -> TopicName {
        TopicName::parse_stored("orders").unwrap()
    }

    /// Messages that were sent, with the answers that their confirms gave.
    fn sent(answers: Answers) -> (Vec<Message>, Vec<Going>, Answers) {
        let batch = (1..=answers.len()).map(|at| {
            let id = MessageId::from_uuid(uuid::Uuid::from_u128(at as u128));
            Message::new(id, orders(), chrono::DateTime::UNIX_EPOCH, "x".into())
        });
        let going = (0..answers.len()).map(|at| Going {
            at,
            exchange: "hl:orders".into(),
            key: "".into(),
            delay: None,
        });
        (batch.collect(), going.collect(), answers)
    }

    fn came_back(batch: &[Message], at: usize) -> BTreeSet<String> {
        batch
            .get(at)
            .map(|message| message.id.to_string())
            .into_iter()
            .collect()
    }

    fn error_at(answers: &Answers, at: usize) -> &Error {
        answers[at].as_ref().unwrap().as_ref().unwrap_err()
    }

    #[test]
    fn should_not_be_accepted_when_it_came_back_and_a_later_confirm_is_late() {
        let late = overdue("send", "call_timeout");
        let (batch, going, mut answers) = sent(vec![
            Some(Ok(Sent::Accepted)),
            Some(Ok(Sent::Accepted)),
            Some(Err(late)),
            None,
        ]);
        doubt(&going, &mut answers);
        let returned = came_back(&batch, 0);
        assert!(tell_returned(None, &batch, &going, &returned, &mut answers).is_empty());
        // The first is known not to have been taken, the second may have come back as well.
        assert_eq!(error_at(&answers, 0).kind(), ErrorKind::Unavailable);
        assert!(!error_at(&answers, 0).is_outcome_unknown());
        assert_eq!(error_at(&answers, 1).kind(), ErrorKind::Unavailable);
        assert!(error_at(&answers, 1).is_outcome_unknown());
        assert_eq!(error_at(&answers, 2).kind(), ErrorKind::Timeout);
        assert!(answers[3].is_none(), "what was not sent is told so elsewhere");
    }

    #[test]
    fn should_be_unavailable_when_it_came_back_and_a_group_takes_its_topic() {
        let (batch, going, mut answers) = sent(vec![Some(Ok(Sent::Accepted))]);
        let returned = came_back(&batch, 0);
        let mut known = Known::default();
        known.add_topic(&orders(), KnownTopic::new(TopicOrder::Unordered, true));
        known.add_group(&GroupName::parse("billing").unwrap(), &orders());
        let missing = tell_returned(Some(&known), &batch, &going, &returned, &mut answers);
        assert_eq!(missing, BTreeSet::from([0]));
        let error = error_at(&answers, 0);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.is_retryable() && !error.is_outcome_unknown(), "{error}");
    }

    #[test]
    fn should_be_unrouted_or_not_found_when_it_came_back_and_no_group_takes_its_topic() {
        for is_required in [false, true] {
            let (batch, going, mut answers) = sent(vec![Some(Ok(Sent::Accepted))]);
            let returned = came_back(&batch, 0);
            let mut known = Known::default();
            known.add_topic(&orders(), KnownTopic::new(TopicOrder::Unordered, is_required));
            let missing = tell_returned(Some(&known), &batch, &going, &returned, &mut answers);
            assert!(missing.is_empty());
            if is_required {
                assert_eq!(error_at(&answers, 0).kind(), ErrorKind::NotFound);
            } else {
                assert!(matches!(answers[0], Some(Ok(Sent::Unrouted))));
            }
        }
    }
}
