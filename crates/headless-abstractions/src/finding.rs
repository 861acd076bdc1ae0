//! What a provider finds when it examines its own server, and what to do about it.

use std::fmt;

use crate::{Error, ErrorKind};

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Check {
    /// Whether the server can be reached, and lets us in.
    Reachable,
    /// Whether its version is one that the provider works with.
    Version,
    /// Whether it takes what we want to write now.
    Writable,
    /// Whether what it has confirmed survives its end.
    Durable,
    /// Whether it has room for the connections of a process.
    Capacity,
    /// How far its clock is from ours.
    Clock,
    /// Whether it has what the provider keeps there, as this version of it needs it.
    Schema,
    /// Whether the user may do what the provider does.
    Rights,
}

impl Check {
    /// The check in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reachable => "reachable",
            Self::Version => "version",
            Self::Writable => "writable",
            Self::Durable => "durable",
            Self::Capacity => "capacity",
            Self::Clock => "clock",
            Self::Schema => "schema",
            Self::Rights => "rights",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How something is that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Condition {
    /// As it should be.
    Good,
    /// It could not be looked at; the finding says why.
    Unknown,
    /// Services run, with something that their operators should know.
    Doubtful,
    /// A service cannot run so, or may lose what it was told is safe.
    Bad,
}

impl Condition {
    /// The condition in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Unknown => "unknown",
            Self::Doubtful => "doubtful",
            Self::Bad => "bad",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing that was looked at: how it is and, where something should be done, what. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// How it is.
    pub condition: Condition,
    /// What was seen, in one line.
    pub found: String,
    /// What to do about it, where something should be done.
    pub fix: Option<String>,
}

impl Finding {
    /// As it should be.
    #[must_use]
    pub fn good(check: Check, found: impl Into<String>) -> Self {
        Self {
            check,
            condition: Condition::Good,
            found: found.into(),
            fix: None,
        }
    }

    /// It could not be looked at, for this reason.
    #[must_use]
    pub fn unknown(check: Check, why: impl Into<String>) -> Self {
        Self {
            check,
            condition: Condition::Unknown,
            found: why.into(),
            fix: None,
        }
    }

    /// Services run, with this to know.
    #[must_use]
    pub fn doubtful(check: Check, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            check,
            condition: Condition::Doubtful,
            found: found.into(),
            fix: Some(fix.into()),
        }
    }

    /// A service cannot run so, or may lose what it was told is safe.
    #[must_use]
    pub fn bad(check: Check, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            check,
            condition: Condition::Bad,
            found: found.into(),
            fix: Some(fix.into()),
        }
    }

    /// The look failed with this error, which says what to do.
    #[must_use]
    pub fn failed(check: Check, error: &Error) -> Self {
        let mut found = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            found.push_str(": ");
            found.push_str(&cause.to_string());
            source = cause.source();
        }
        let fix = match error.kind() {
            ErrorKind::Denied => "give the URL a user, a password and certificates that the server accepts",
            ErrorKind::NotFound => "create what is missing, or correct the URL",
            ErrorKind::Unavailable | ErrorKind::Timeout => {
                "start the server, or correct host and port of the URL; look at firewalls in between"
            }
            ErrorKind::Unsupported => "use a version of the server that has it",
            _ => "mend what the error names",
        };
        Self::bad(check, found, fix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_say_the_whole_chain_and_a_fix_when_a_look_failed() {
        let cause = std::io::Error::other("connection refused");
        let error = Error::new(ErrorKind::Unavailable, "no connection could be made").with_source(cause);
        let finding = Finding::failed(Check::Reachable, &error);
        assert_eq!(finding.condition, Condition::Bad);
        assert!(finding.found.contains("connection refused"), "{finding:?}");
        assert!(finding.fix.is_some_and(|fix| fix.contains("start the server")));
    }
}
