//! What an operator wants of a service, as rows that its nodes apply.

use std::{fmt, fmt::Debug, num::NonZeroU32, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{Cursor, Error, ErrorKind, GroupName, Page, Result, TopicName, text};

/// What is steered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ControlSubject {
    /// A consumer group, on one topic or on all of its topics.
    Group {
        /// The group.
        group: GroupName,
        /// The topic; `None` for all.
        topic: Option<TopicName>,
    },
    /// What a later version steers, as its text: this version lists it and leaves it alone.
    Other(Arc<str>),
}

impl ControlSubject {
    /// The longest text of a subject in bytes.
    pub const MOST: usize = 256;

    /// A group on all of its topics.
    #[must_use]
    pub const fn group(group: GroupName) -> Self {
        Self::Group { group, topic: None }
    }

    /// A group on one topic.
    #[must_use]
    pub const fn group_on(group: GroupName, topic: TopicName) -> Self {
        Self::Group {
            group,
            topic: Some(topic),
        }
    }

    /// Parses what [`to_text`](Self::to_text) writes: `group:billing`, `group:billing/orders.placed`, or a word that this
    /// version does not know, a colon and a name.
    ///
    /// # Errors
    /// `Invalid` for anything else, `TooLarge` for more than [`MOST`](Self::MOST) bytes.
    pub fn parse(text: &str) -> Result<Self> {
        text::check("subject", text, Self::MOST)?;
        match text.split_once(':') {
            Some(("group", name)) => match name.split_once('/') {
                Some((group, topic)) => Ok(Self::group_on(
                    GroupName::parse(group)?,
                    TopicName::parse_stored(topic)?,
                )),
                None => GroupName::parse(name).map(Self::group),
            },
            Some((kind, name))
                if !name.is_empty()
                    && !kind.is_empty()
                    && kind.bytes().all(|byte| byte.is_ascii_lowercase()) =>
            {
                Ok(Self::Other(text.into()))
            }
            _ => Err(Error::invalid(format!(
                "subject {text:?} must be a kind of lower-case letters, a colon and a name, as group:billing"
            ))),
        }
    }

    /// The text by which a store keeps it: no other subject has the same.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Group { group, topic: None } => format!("group:{group}"),
            Self::Group {
                group,
                topic: Some(topic),
            } => format!("group:{group}/{topic}"),
            Self::Other(text) => text.to_string(),
        }
    }
}

impl fmt::Display for ControlSubject {
    /// As people say it: `group billing on orders.placed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group { group, topic: None } => write!(f, "group {group}"),
            Self::Group {
                group,
                topic: Some(topic),
            } => write!(f, "group {group} on {topic}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// What an operator wants of a subject. The default wants nothing: the subject runs as it is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct DesiredState {
    /// It is to be paused.
    pub paused: bool,
    /// At most this many handler calls at once in each process; `None` leaves what is configured.
    pub concurrency: Option<NonZeroU32>,
}

impl DesiredState {
    /// The highest concurrency that may be asked for.
    pub const MOST_CONCURRENCY: u32 = 100_000;

    /// Nothing is wanted: the subject runs as it is configured.
    #[must_use]
    pub const fn nothing() -> Self {
        Self {
            paused: false,
            concurrency: None,
        }
    }

    /// Paused or not.
    #[must_use]
    pub const fn with_paused(mut self, paused: bool) -> Self {
        self.paused = paused;
        self
    }

    /// With this concurrency; `None` leaves what is configured.
    ///
    /// # Errors
    /// `Invalid` above [`MOST_CONCURRENCY`](Self::MOST_CONCURRENCY).
    pub fn with_concurrency(mut self, most: Option<NonZeroU32>) -> Result<Self> {
        if let Some(asked) = most.filter(|asked| asked.get() > Self::MOST_CONCURRENCY) {
            return Err(Error::invalid(format!(
                "concurrency is {asked}, the most is {}",
                Self::MOST_CONCURRENCY
            )));
        }
        self.concurrency = most;
        Ok(self)
    }

    /// Whether nothing is wanted.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::nothing()
    }
}

/// How far the desired state of a store has come: it rises with every change in the store, of whichever service, and an
/// entry keeps the one of its last change as its version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ControlVersion(u64);

impl ControlVersion {
    /// Before the first change; as an expected version, of a subject that was never changed.
    pub const NONE: Self = Self(0);

    /// The version of this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ControlVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A change of what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControlChange {
    /// Of this service.
    pub service: Arc<str>,
    /// Of this subject.
    pub subject: ControlSubject,
    /// From now on this is wanted. Nothing takes back what was.
    pub desired: DesiredState,
    /// Only if this is still the version of the subject's entry.
    pub expected: ControlVersion,
    /// Who asks, kept with the entry.
    pub by: Arc<str>,
}

impl ControlChange {
    /// The longest name of a service in bytes.
    pub const MOST_SERVICE: usize = 100;
    /// The longest name of who asks in bytes.
    pub const MOST_BY: usize = 200;

    /// This state of a subject is wanted by `by`, if the subject was never changed.
    ///
    /// # Errors
    /// `Invalid` for a service or a `by` that is empty or has a control character, and for a concurrency of a group on one
    /// topic, since a group has one over all of its topics; `TooLarge` for more than
    /// [`MOST_SERVICE`](Self::MOST_SERVICE) or [`MOST_BY`](Self::MOST_BY) bytes.
    pub fn new(service: &str, subject: ControlSubject, desired: DesiredState, by: &str) -> Result<Self> {
        text::check("service", service, Self::MOST_SERVICE)?;
        text::check("by", by, Self::MOST_BY)?;
        if let ControlSubject::Group { topic: Some(_), .. } = subject
            && desired.concurrency.is_some()
        {
            return Err(Error::invalid(format!(
                "{subject} can be paused, and has no concurrency of its own: set that of the group"
            )));
        }
        Ok(Self {
            service: service.into(),
            subject,
            desired,
            expected: ControlVersion::NONE,
            by: by.into(),
        })
    }

    /// What a store answers where the service has as many entries as it may.
    #[must_use]
    pub fn one_too_many(&self) -> Error {
        let (service, most) = (&self.service, ControlEntry::MOST);
        Error::new(
            ErrorKind::TooLarge,
            format!(
                "service {service} has entries for {most} subjects, and no room for {}",
                self.subject
            ),
        )
    }

    /// Only if this is still the version of the subject's entry.
    #[must_use]
    pub const fn with_expected(mut self, version: ControlVersion) -> Self {
        self.expected = version;
        self
    }
}

/// What is wanted of a subject, as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControlEntry {
    /// Of this service.
    pub service: Arc<str>,
    /// Of this subject.
    pub subject: ControlSubject,
    /// What is wanted; nothing after it was taken back.
    pub desired: DesiredState,
    /// Which change it was.
    pub version: ControlVersion,
    /// Who asked.
    pub changed_by: Arc<str>,
    /// How long ago, by the store's clock.
    pub changed: Duration,
}

impl ControlEntry {
    /// The most entries of one service.
    pub const MOST: usize = 1_000;

    /// The entry that this change makes, just now.
    #[must_use]
    pub fn new(change: &ControlChange, version: ControlVersion) -> Self {
        Self {
            service: change.service.clone(),
            subject: change.subject.clone(),
            desired: change.desired,
            version,
            changed_by: change.by.clone(),
            changed: Duration::ZERO,
        }
    }

    /// Changed so long ago.
    #[must_use]
    pub const fn with_changed(mut self, ago: Duration) -> Self {
        self.changed = ago;
        self
    }
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the expected version is the current one or is not: there is no third answer"
)]
#[must_use = "a conflict has changed nothing"]
pub enum ControlPut {
    /// It is stored, as this version.
    Stored(ControlVersion),
    /// Nothing was changed: this is what somebody else has stored, or that there is nothing.
    Conflict(Option<ControlEntry>),
}

/// What operators want of services, in one store. Whoever may write to the store may change it.
#[async_trait]
pub trait ControlStore: Debug + Send + Sync + 'static {
    /// Stores what is wanted of a subject, if its entry still has the expected version, and answers the new version: the
    /// store's revision from then on. A conflict changes nothing, not even the revision, and answers the entry that is
    /// there. An entry stays when nothing is wanted any more, so that its versions never begin anew. A service has at most
    /// [`ControlEntry::MOST`] entries.
    ///
    /// One atomic step. Changes in one store come one after the other: of several that expect the same version, one is
    /// stored. Blocks for a round trip, and for those before it. Dropping the future leaves it open whether it was stored;
    /// repeating it then answers a conflict with its own entry.
    ///
    /// # Errors
    /// `TooLarge` for a subject beyond the bound of its service; `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn put(&self, change: &ControlChange) -> Result<ControlPut>;

    /// What is wanted of this service, in an order of its subjects that does not change, what was taken back among it.
    ///
    /// One look: a page is never part old and part new. Blocks for a round trip.
    ///
    /// # Errors
    /// `Invalid` for a limit of 0, or above 1 000, and for a cursor of another list; `Unavailable`, `Timeout`, `Denied`,
    /// `Closed`.
    async fn list(&self, service: &str, after: Option<&Cursor>, limit: usize) -> Result<Page<ControlEntry>>;

    /// The version of the latest change in the store, of any service. Whoever lists after it was answered sees every change
    /// up to it: no change appears later under a lower version.
    ///
    /// Blocks for a round trip, which costs the store no more than a look at one row, and waits for no change.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn revision(&self) -> Result<ControlVersion>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str) -> GroupName {
        GroupName::parse(name).unwrap()
    }

    #[test]
    fn should_read_what_it_wrote_when_a_subject_is_parsed() {
        let topic = TopicName::parse("orders.placed").unwrap();
        for subject in [
            ControlSubject::group(group("billing")),
            ControlSubject::group_on(group("billing"), topic.clone()),
            ControlSubject::group_on(group("billing"), topic.dead()),
            ControlSubject::Other("cron:nightly report".into()),
        ] {
            assert_eq!(ControlSubject::parse(&subject.to_text()).unwrap(), subject);
        }
        let long = format!("group:{}", "a".repeat(300));
        for wrong in [
            "", "group", "group:", "group:A", "group:a/", ":a", "Group:a", "cron:", "cron:\n", &*long,
        ] {
            assert!(ControlSubject::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn should_name_field_and_limit_when_a_change_is_out_of_bounds() {
        let subject = ControlSubject::group(group("billing"));
        let nothing = DesiredState::nothing();
        let change = |service: &str, by: &str| ControlChange::new(service, subject.clone(), nothing, by);
        for (service, by, said) in [
            ("", "me", "service is empty"),
            (&*"s".repeat(101), "me", "service is 101 bytes, the limit is 100"),
            ("orders", "", "by is empty"),
            ("orders", "a\nb", "by contains the control character U+000A"),
            ("orders", &*"x".repeat(201), "by is 201 bytes, the limit is 200"),
        ] {
            let error = change(service, by).unwrap_err().to_string();
            assert!(error.contains(said), "{error:?} lacks {said:?}");
        }
        let most = NonZeroU32::new(DesiredState::MOST_CONCURRENCY);
        let limited = nothing.with_concurrency(most).unwrap();
        let above = NonZeroU32::new(DesiredState::MOST_CONCURRENCY + 1);
        let error = nothing.with_concurrency(above).unwrap_err().to_string();
        assert!(error.contains("the most is 100000"), "{error}");
        let on = ControlSubject::group_on(group("billing"), TopicName::parse("orders").unwrap());
        let error = ControlChange::new("orders", on.clone(), limited, "me").unwrap_err();
        assert!(error.to_string().contains("no concurrency of its own"), "{error}");
        ControlChange::new("orders", on, nothing.with_paused(true), "me").unwrap();
    }
}
