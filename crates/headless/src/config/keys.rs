//! The keys that a configuration may have.

use std::fmt;

use super::PREFIX;
use crate::settings::NAMES;

/// Which side of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Store,
    Transport,
}

/// What is said of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Url,
    UrlFile,
    Password,
    PasswordFile,
}

/// What is said of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfTopic {
    /// That there is one.
    Itself,
    Partitions,
    Required,
}

/// What is said of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfGroup {
    /// That there is one.
    Itself,
    Concurrency,
    Prefetch,
    Timeout,
    Lease,
    Visibility,
}

/// What a key is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Service,
    Node,
    Preset,
    Side(Side, Part),
    Topic(String, OfTopic),
    Group(String, OfGroup),
    /// One of the table of settings.
    Setting,
    Unknown,
}

/// The keys beside those of the table of settings, and those of topics and groups.
static FIXED: [(&str, Meaning); 11] = [
    ("service", Meaning::Service),
    ("node", Meaning::Node),
    ("preset", Meaning::Preset),
    ("store.url", Meaning::Side(Side::Store, Part::Url)),
    ("store.url_file", Meaning::Side(Side::Store, Part::UrlFile)),
    ("store.password", Meaning::Side(Side::Store, Part::Password)),
    (
        "store.password_file",
        Meaning::Side(Side::Store, Part::PasswordFile),
    ),
    ("transport.url", Meaning::Side(Side::Transport, Part::Url)),
    (
        "transport.url_file",
        Meaning::Side(Side::Transport, Part::UrlFile),
    ),
    (
        "transport.password",
        Meaning::Side(Side::Transport, Part::Password),
    ),
    (
        "transport.password_file",
        Meaning::Side(Side::Transport, Part::PasswordFile),
    ),
];

const OF_TOPICS: [(&str, OfTopic); 2] = [
    ("partitions", OfTopic::Partitions),
    ("required", OfTopic::Required),
];

const OF_GROUPS: [(&str, OfGroup); 5] = [
    ("concurrency", OfGroup::Concurrency),
    ("prefetch", OfGroup::Prefetch),
    ("timeout", OfGroup::Timeout),
    ("lease", OfGroup::Lease),
    ("visibility", OfGroup::Visibility),
];

/// A key as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// As a text writes it, with dots.
    name: String,
    meaning: Meaning,
    is_variable: bool,
}

impl Key {
    /// The key at the end of this path of a text.
    pub(super) fn of_toml(path: &[String]) -> Self {
        let name = path.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(".");
        let meaning = match path {
            [topics, topic, last] if topics == "topics" => OF_TOPICS
                .iter()
                .find(|(name, _)| name == last)
                .map_or(Meaning::Unknown, |(_, of)| Meaning::Topic(topic.clone(), *of)),
            [topics, topic] if topics == "topics" => Meaning::Topic(topic.clone(), OfTopic::Itself),
            [groups, group, last] if groups == "groups" => OF_GROUPS
                .iter()
                .find(|(name, _)| name == last)
                .map_or(Meaning::Unknown, |(_, of)| Meaning::Group(group.clone(), *of)),
            [groups, group] if groups == "groups" => Meaning::Group(group.clone(), OfGroup::Itself),
            _ => meaning(&name),
        };
        Self {
            name,
            meaning,
            is_variable: false,
        }
    }

    /// Whether keys may stand under this path.
    pub(super) fn is_heading(path: &[String]) -> bool {
        let heading = format!("{}.", path.join("."));
        ["topics.", "groups."].contains(&&*heading) || known().any(|name| name.starts_with(&heading))
    }

    /// The key of a variable, from what follows the prefix.
    pub(super) fn of_variable(words: &str) -> Self {
        let name = words.to_ascii_lowercase().replace("__", ".");
        // Names of variables are compared as they are.
        let meaning = if words == words.to_ascii_uppercase() {
            meaning(&name)
        } else {
            Meaning::Unknown
        };
        Self {
            name,
            meaning,
            is_variable: true,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn meaning(&self) -> &Meaning {
        &self.meaning
    }

    /// The known key that is nearest to an unknown one, as it would be written in its place.
    pub(super) fn nearest(&self) -> String {
        let own = |name: &str| match self.is_variable {
            true => variable(name),
            false => name.to_owned(),
        };
        if let Some((of, last)) = self.name.rsplit_once('.').filter(|_| !self.is_variable) {
            if of.starts_with("topics.") {
                return format!("{of}.{}", nearest(last, OF_TOPICS.iter().map(|(name, _)| *name)));
            }
            if of.starts_with("groups.") {
                return format!("{of}.{}", nearest(last, OF_GROUPS.iter().map(|(name, _)| *name)));
            }
        }
        own(nearest(&self.name, known()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The variable of a key.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('.', "__").to_ascii_uppercase())
}

/// Every key but those of topics and groups.
pub(super) fn known() -> impl Iterator<Item = &'static str> {
    FIXED.iter().map(|(name, _)| *name).chain(NAMES.iter().copied())
}

fn meaning(name: &str) -> Meaning {
    match FIXED.iter().find(|(fixed, _)| *fixed == name) {
        Some((_, meaning)) => meaning.clone(),
        None if NAMES.contains(&name) => Meaning::Setting,
        None => Meaning::Unknown,
    }
}

fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> &'static str {
    known
        .min_by_key(|known| strsim::osa_distance(name, known))
        .unwrap_or_default()
}

/// A word of a path as TOML writes it.
fn quoted(word: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !word.is_empty() && word.chars().all(is_bare) {
        word.to_owned()
    } else {
        format!("{word:?}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn should_know_each_key_by_its_variable_when_it_has_one() {
        let variables: BTreeSet<String> = known().map(variable).collect();
        assert_eq!(variables.len(), known().count(), "two keys share a variable");
        for name in known() {
            let variable = variable(name);
            let key = Key::of_variable(variable.strip_prefix(PREFIX).unwrap());
            assert_eq!(key.name(), name);
            assert_ne!(key.meaning(), &Meaning::Unknown, "{name}");
        }
    }

    #[test]
    fn should_name_the_nearest_key_as_it_is_written_when_one_is_unknown() {
        let path = |words: &[&str]| Key::of_toml(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(path(&["relay", "bacth"]).nearest(), "relay.batch");
        assert_eq!(path(&["store", "ulr"]).nearest(), "store.url");
        assert_eq!(
            path(&["topics", "a.b", "partition"]).nearest(),
            "topics.\"a.b\".partitions"
        );
        assert_eq!(
            path(&["groups", "billing", "concurency"]).nearest(),
            "groups.billing.concurrency"
        );
        assert_eq!(
            Key::of_variable("RELAY_BATCH").nearest(),
            "HEADLESS__RELAY__BATCH"
        );
        assert_eq!(path(&["relay.batch"]).meaning(), &Meaning::Unknown);
        assert_eq!(Key::of_variable("relay__batch").meaning(), &Meaning::Unknown);
    }
}
