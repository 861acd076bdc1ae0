//! Settings of a group that are given apart from its code.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use headless_abstractions::{Error, Result};

use crate::Consumer;

/// A setting of a group that can be given apart from its code, as a configuration does: what an operator tunes, and nothing
/// of what a handler relies on. The method of [`Consumer`] with its name says what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupSetting {
    /// [`Consumer::concurrency`].
    Concurrency(usize),
    /// [`Consumer::prefetch`].
    Prefetch(NonZeroUsize),
    /// [`Consumer::timeout`].
    Timeout(Duration),
    /// [`Consumer::lease`].
    Lease(Duration),
    /// [`Consumer::visibility`].
    Visibility(Duration),
}

impl GroupSetting {
    /// Its name: that of the method.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Concurrency(_) => "concurrency",
            Self::Prefetch(_) => "prefetch",
            Self::Timeout(_) => "timeout",
            Self::Lease(_) => "lease",
            Self::Visibility(_) => "visibility",
        }
    }
}

/// Which settings were given, and where.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(BTreeMap<&'static str, Place>);

#[derive(Clone, Debug)]
enum Place {
    Code,
    Elsewhere(String),
}

impl Places {
    pub(super) fn note_code(&mut self, name: &'static str) {
        self.0.insert(name, Place::Code);
    }

    /// Where a setting stands outside of the code, to be put behind its value; else nothing.
    pub(super) fn of(&self, name: &str) -> String {
        match self.0.get(name) {
            Some(Place::Elsewhere(place)) => format!(" ({place})"),
            Some(Place::Code) | None => String::new(),
        }
    }
}

impl Consumer {
    /// With a setting that stands outside of the code, at `place`: "file orders.toml, line 3". What is wrong with its value is
    /// reported at start-up, with the place. A later one replaces an earlier one.
    ///
    /// # Errors
    /// `Invalid` when the code gives it too; nothing is changed then.
    pub fn configure(&mut self, setting: GroupSetting, place: impl Into<String>) -> Result<()> {
        let (name, place) = (setting.name(), place.into());
        if matches!(self.settings.places.0.get(name), Some(Place::Code)) {
            return Err(Error::invalid(format!(
                "{name} of group {:?} is given twice, in code and in {place}: keep one",
                self.group
            )));
        }
        let settings = &mut self.settings;
        match setting {
            GroupSetting::Concurrency(most) => settings.concurrency = most,
            GroupSetting::Prefetch(most) => settings.prefetch = Some(most),
            GroupSetting::Timeout(timeout) => settings.timeout = timeout,
            GroupSetting::Lease(lease) => settings.lease = lease,
            GroupSetting::Visibility(visibility) => settings.visibility = visibility,
        }
        settings.places.0.insert(name, Place::Elsewhere(place));
        Ok(())
    }
}
