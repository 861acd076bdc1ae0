//! How messages are named in traces and violations: by the numbers that the script gave them.

use std::fmt;

use headless_abstractions::MessageId;
use uuid::Uuid;

/// Above the number of a message that a producer publishes.
const FOLLOW_UP: u128 = 1 << 32;

/// The id of the message with this number, in the form of a UUIDv7.
pub(super) fn id_of(number: u64) -> MessageId {
    const FORM: u128 = 0x0197_0000_0000_7000_8000_0000_0000_0000;
    MessageId::from_uuid(Uuid::from_u128(FORM | u128::from(number)))
}

/// The id of the message that the handler of this message publishes in the group with this number.
pub(super) fn follow_up_of(id: MessageId, group: usize) -> MessageId {
    MessageId::from_uuid(Uuid::from_u128(
        id.as_uuid().as_u128() + FOLLOW_UP * (group as u128 + 1),
    ))
}

/// `m7` for the seventh message, `m7+1` for what the first group's handler published because of it.
pub(super) struct Label(pub(super) MessageId);

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.as_uuid().as_u128();
        let (number, group) = (bits % FOLLOW_UP, (bits / FOLLOW_UP) % 16);
        match group {
            0 => write!(f, "m{number}"),
            group => write!(f, "m{number}+{group}"),
        }
    }
}

/// Several things, separated by spaces.
pub(super) fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_name_messages_by_their_numbers() {
        assert_eq!(Label(id_of(7)).to_string(), "m7");
        assert_eq!(Label(follow_up_of(id_of(7), 1)).to_string(), "m7+2");
        assert_eq!(list(["a", "b"]), "a b");
    }
}
