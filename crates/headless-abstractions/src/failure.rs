//! One failed attempt, as it is kept with a row and shown to an operator.

use chrono::{DateTime, Utc};

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FailureCause {
    /// The handler returned an error that may pass.
    Error,
    /// The handler returned an error that it called permanent.
    Permanent,
    /// The handler panicked.
    Panic,
    /// The handler took longer than its time-out.
    Timeout,
    /// The handler was cancelled from outside: a lease was lost, a shutdown reached its deadline.
    Cancelled,
    /// The handler returned `Ok` and left its unit of work uncommitted.
    Uncommitted,
    /// The payload could not be decoded as the type that it claims to be.
    Undecodable,
    /// No handler of the group takes this type.
    UnknownType,
    /// The message ended its last allowed round without an answer, as one that kills its process does.
    RoundsExhausted,
    /// The transport refused the message itself.
    Refused,
}

impl FailureCause {
    /// Every cause.
    pub const ALL: [Self; 10] = [
        Self::Error,
        Self::Permanent,
        Self::Panic,
        Self::Timeout,
        Self::Cancelled,
        Self::Uncommitted,
        Self::Undecodable,
        Self::UnknownType,
        Self::RoundsExhausted,
        Self::Refused,
    ];

    /// The stable name, for storage, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Permanent => "permanent",
            Self::Panic => "panic",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Uncommitted => "uncommitted",
            Self::Undecodable => "undecodable",
            Self::UnknownType => "unknown_type",
            Self::RoundsExhausted => "rounds_exhausted",
            Self::Refused => "refused",
        }
    }

    /// The cause with this stable name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == name)
    }
}

impl std::fmt::Display for FailureCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One failed attempt.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Failure {
    /// Why.
    pub cause: FailureCause,
    /// What the error said: at most [`Failure::MAX_MESSAGE`] bytes, NUL replaced.
    pub message: String,
    /// The label of the node on which it happened.
    pub node: String,
    /// When, by that node's clock.
    pub at: DateTime<Utc>,
}

impl Failure {
    /// The longest message that is kept, in bytes.
    pub const MAX_MESSAGE: usize = 4096;

    /// The most failures that are kept with one row: the first ones and, of those after, the latest.
    pub const MAX_KEPT: usize = 32;

    /// A failure; `message` is cut at [`Self::MAX_MESSAGE`] bytes and its NUL characters are replaced by U+FFFD.
    #[must_use]
    pub fn new(
        cause: FailureCause,
        message: impl Into<String>,
        node: impl Into<String>,
        at: DateTime<Utc>,
    ) -> Self {
        let mut message = message.into().replace('\0', "\u{fffd}");
        if message.len() > Self::MAX_MESSAGE {
            let mut end = Self::MAX_MESSAGE;
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
        }
        Self {
            cause,
            message,
            node: node.into(),
            at,
        }
    }

    /// The longest shape of a message, in characters.
    pub const MAX_SHAPE: usize = 200;

    /// The message without what differs between failures of one kind, so that they can be counted together: each run of
    /// ASCII letters, ASCII digits, `_` and `-` that has a digit in it becomes `#`, and what is left is cut at
    /// [`Self::MAX_SHAPE`] characters.
    ///
    /// ```
    /// # use headless_abstractions::{Failure, FailureCause};
    /// # let at = chrono::DateTime::UNIX_EPOCH;
    /// let failure = Failure::new(FailureCause::Error, "order 17: 10.0.0.7:5432 refused", "node", at);
    /// assert_eq!(failure.shape(), "order #: #.#.#.#:# refused");
    /// ```
    #[must_use]
    pub fn shape(&self) -> String {
        let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let mut shape = String::new();
        let mut rest = &*self.message;
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
            let (part, after) = rest.split_at(if word == 0 { first.len_utf8() } else { word });
            let varies = word > 0 && part.contains(|c: char| c.is_ascii_digit());
            shape.push_str(if varies { "#" } else { part });
            rest = after;
        }
        if let Some((end, _)) = shape.char_indices().nth(Self::MAX_SHAPE) {
            shape.truncate(end);
        }
        shape
    }

    /// Appends `new` to `kept`, dropping from the middle so that at most [`Self::MAX_KEPT`] stay: the first tells
    /// how it began, the latest how it ended.
    pub fn append(kept: &mut Vec<Self>, new: impl IntoIterator<Item = Self>) {
        for failure in new {
            if kept.len() >= Self::MAX_KEPT {
                kept.remove(Self::MAX_KEPT / 2);
            }
            kept.push(failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(message: &str) -> Failure {
        Failure::new(FailureCause::Error, message, "node", DateTime::UNIX_EPOCH)
    }

    #[test]
    fn should_keep_first_and_latest_when_many_failed() {
        let mut kept = Vec::new();
        Failure::append(&mut kept, (0..1_000).map(|n| failure(&n.to_string())));
        assert_eq!(kept.len(), Failure::MAX_KEPT);
        assert_eq!(kept[0].message, "0");
        assert_eq!(kept[Failure::MAX_KEPT - 1].message, "999");
    }

    #[test]
    fn should_cut_at_a_character_when_the_message_is_long() {
        let long = failure(&"ä".repeat(5_000));
        assert_eq!(long.message.len(), Failure::MAX_MESSAGE);
        assert_eq!(failure("a\0b").message, "a\u{fffd}b");
    }

    #[test]
    fn should_be_of_one_shape_when_only_numbers_and_ids_differ() {
        for (message, shape) in [
            ("", ""),
            ("no such customer", "no such customer"),
            ("customer 7 of 99", "customer # of #"),
            ("order-17 (7cd923f1-1a06-452c-aabf-9755b8260b16)", "# (#)"),
            ("Zürich 東京 12é3", "Zürich 東京 #é#"),
            ("a_1\nb", "#\nb"),
        ] {
            assert_eq!(failure(message).shape(), shape);
        }
        assert_eq!(failure(&"é ".repeat(300)).shape(), "é ".repeat(100));
    }

    #[test]
    fn should_find_each_cause_when_named() {
        for cause in FailureCause::ALL {
            assert_eq!(FailureCause::from_name(cause.as_str()), Some(cause));
        }
    }
}
