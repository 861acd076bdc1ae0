//! Where a store or a transport is, from its URL and its password.

use std::path::Path;

use super::{
    keys::{Part, Side},
    layer::Entry,
    read,
    secret::Secret,
};
use crate::{
    ProviderUrl, Source,
    settings::{Read, Written},
};

impl Side {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Transport => "transport",
        }
    }
}

/// Where a store or a transport is. It shows no secret.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// The password is in it.
    pub(crate) url: ProviderUrl,
    pub(crate) source: Source,
    /// Where the password came from, if not with the URL.
    pub(crate) password: Option<Source>,
}

/// What is said of one side, as it comes.
#[derive(Default)]
pub(super) struct Draft {
    url: Option<Found>,
    password: Option<Found>,
}

/// A value, or the file that holds it.
#[derive(Clone)]
struct Found {
    written: Written,
    is_file: bool,
    key: String,
    source: Source,
    layer: usize,
}

impl Draft {
    /// Takes what an entry says; a later layer goes before an earlier one, and in one layer only one form is allowed. A URL
    /// takes the password of an earlier layer away: that was for another server.
    pub(super) fn take(&mut self, part: Part, entry: &Entry, layer: usize, problems: &mut Vec<String>) {
        let found = Found {
            written: entry.written.clone(),
            is_file: matches!(part, Part::UrlFile | Part::PasswordFile),
            key: entry.key.name().to_owned(),
            source: entry.source.clone(),
            layer,
        };
        let place = match part {
            Part::Url | Part::UrlFile => &mut self.url,
            Part::Password | Part::PasswordFile => &mut self.password,
        };
        if let Some(other) = place.as_ref().filter(|other| other.layer == layer) {
            problems.push(format!(
                "{}{} and {}{} are both given: keep one",
                other.key,
                other.source.place(),
                found.key,
                found.source.place()
            ));
        }
        let is_url = matches!(part, Part::Url | Part::UrlFile);
        *place = Some(found);
        if is_url
            && self
                .password
                .as_ref()
                .is_some_and(|password| password.layer < layer)
        {
            self.password = None;
        }
    }

    /// Whether anything says where it is, be it of use or not.
    pub(super) const fn is_named(&self) -> bool {
        self.url.is_some()
    }

    /// The endpoint, if there is one and nothing is wrong with it.
    pub(super) fn finish(self, side: Side, problems: &mut Vec<String>) -> Option<Endpoint> {
        let Some(url) = self.url else {
            if let Some(password) = self.password {
                let side = side.name();
                problems.push(format!(
                    "{}{} has no URL to go with: set {side}.url or {side}.url_file",
                    password.key,
                    password.source.place()
                ));
            }
            return None;
        };
        // Both are read, so that the problems of both are reported.
        let text = url.read(problems);
        let password = self.password.map(|found| (found.read(problems), found));
        let mut parsed = match ProviderUrl::parse(text?.expose()) {
            Ok(parsed) => parsed,
            Err(error) => {
                problems.push(format!("{}{}: {}", url.key, url.source.place(), error.message()));
                return None;
            }
        };
        let mut from = None;
        if let Some((secret, found)) = password {
            let secret = secret?;
            // A later layer goes before what the URL of an earlier one has where a URL has a password.
            let is_doubled = match found.layer > url.layer {
                true => parsed.has_query_password(),
                false => parsed.has_password(),
            };
            let wrong = if is_doubled {
                Some(format!("{} has a password too: keep one", url.key))
            } else if parsed.set_password(secret.expose()) {
                None
            } else {
                Some(format!("a URL as {parsed} takes no password"))
            };
            if let Some(wrong) = wrong {
                problems.push(format!("{}{}: {wrong}", found.key, found.source.place()));
                return None;
            }
            from = Some(found.source);
        }
        Some(Endpoint {
            url: parsed,
            source: url.source,
            password: from,
        })
    }
}

impl Found {
    /// The value itself, from its file where it names one.
    fn read(&self, problems: &mut Vec<String>) -> Option<Secret> {
        let read = String::read(&self.written).and_then(|text| {
            if !self.is_file {
                return Ok(text);
            }
            // Editors end a file with a line's end, which no URL and no password has.
            // The name stays out of the problem: it is the secret itself where one took this key for the other.
            let mut text =
                read(Path::new(&text)).map_err(|problem| format!("names a file that {problem}"))?;
            text.truncate(text.trim_end_matches(['\r', '\n']).len());
            Ok(text)
        });
        let read = read.and_then(|text| match text.is_empty() {
            true => Err("is empty".to_owned()),
            false => Ok(Secret::new(text)),
        });
        read.map_err(|problem| problems.push(format!("{} {problem}{}", self.key, self.source.place())))
            .ok()
    }
}
