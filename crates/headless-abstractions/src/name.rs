//! Names of topics and groups: what every broker can hold.
//!
//! The alphabet is `[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*`, at most [`MAX_NAME`] bytes.

use std::{fmt, sync::Arc};

use crate::{Error, Result};

/// The longest name in bytes; a topic that a user declares keeps ten bytes free for derived names.
pub(crate) const MAX_NAME: usize = 100;
const MAX_USER_TOPIC: usize = 90;
const DEAD_SUFFIX: &str = ".dead";

/// The name of a topic.
///
/// ```
/// use headless_abstractions::TopicName;
///
/// assert!(TopicName::parse("orders.placed").is_ok());
/// assert!(TopicName::parse("Orders").is_err());
/// assert!(TopicName::parse("orders.dead").is_err(), "reserved for dead letters");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Parses a topic that a user declares: the alphabet, at most 90 bytes, not ending in `.dead`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the rule that is broken.
    pub fn parse(name: &str) -> Result<Self> {
        check("topic", name, MAX_USER_TOPIC)?;
        if name.ends_with(DEAD_SUFFIX) {
            return Err(Error::invalid(format!(
                "topic {name:?} ends in {DEAD_SUFFIX:?}, which is reserved for dead letters"
            )));
        }
        Ok(Self(name.into()))
    }

    /// Parses any topic that can exist, derived ones included: the alphabet, at most 100 bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the rule that is broken.
    pub fn parse_stored(name: &str) -> Result<Self> {
        check("topic", name, MAX_NAME)?;
        Ok(Self(name.into()))
    }

    /// The topic that takes dead letters of this one where there is no store: `<topic>.dead`.
    #[must_use]
    pub fn dead(&self) -> Self {
        Self(format!("{}{DEAD_SUFFIX}", self.0).into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a consumer group.
///
/// ```
/// use headless_abstractions::GroupName;
///
/// assert_eq!(GroupName::parse("billing").unwrap().as_str(), "billing");
/// assert!(GroupName::parse("billing; drop table x").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupName(Arc<str>);

impl GroupName {
    /// Parses a group's name: the alphabet, at most 100 bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the rule that is broken.
    pub fn parse(name: &str) -> Result<Self> {
        check("group", name, MAX_NAME)?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! name_traits {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )*};
}
name_traits!(TopicName GroupName);

fn check(what: &str, name: &str, limit: usize) -> Result<()> {
    let rule = if name.is_empty() {
        Some("is empty".to_owned())
    } else if name.len() > limit {
        Some(format!("is {} bytes, the limit is {limit}", name.len()))
    } else if !name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) {
        Some("must start with a-z or 0-9".to_owned())
    } else if let Some(wrong) = name
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '_' | '-' | '.'))
    {
        Some(format!(
            "contains {wrong:?}; allowed are a-z, 0-9, '_', '-' and '.' between segments"
        ))
    } else if name.split('.').any(str::is_empty) {
        Some("has an empty segment between dots".to_owned())
    } else {
        None
    };
    match rule {
        None => Ok(()),
        Some(rule) => Err(Error::invalid(format!("{what} {:?} {rule}", shortened(name)))),
    }
}

/// Keeps an error line bounded whatever was passed in.
fn shortened(name: &str) -> &str {
    let mut end = name.len().min(MAX_NAME + 1);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_refuse_hostile_names_when_parsed() {
        let long = "a".repeat(101);
        let hostile = [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "A",
            "ä",
            "a b",
            "a\0b",
            "a*",
            "a>",
            "a/b",
            "a\r\n",
            "-a",
            "_a",
            "public\"; drop table x;--",
            &long,
        ];
        for name in hostile {
            assert!(TopicName::parse(name).is_err(), "{name:?}");
            assert!(TopicName::parse_stored(name).is_err(), "{name:?}");
            assert!(GroupName::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn should_leave_room_for_the_dead_topic_when_a_user_topic_is_longest() {
        let longest = TopicName::parse(&"a".repeat(90)).unwrap();
        assert!(TopicName::parse(&"a".repeat(91)).is_err());
        assert!(TopicName::parse_stored(longest.dead().as_str()).is_ok());
    }

    #[test]
    fn should_bound_the_error_when_the_name_is_huge() {
        let error = GroupName::parse(&"ä".repeat(100_000)).unwrap_err();
        assert!(error.to_string().len() < 400, "{error}");
    }
}
