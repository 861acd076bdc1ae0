//! Which defaults apply.

use std::fmt;

/// Which defaults apply. Presets differ in defaults only; `docs/settings.md` lists every setting with its default under
/// each of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preset {
    /// For services: polls that are easy on the store, and time to drain. The default.
    #[default]
    Production,
    /// For a developer's machine: quick to notice and quick to stop.
    Development,
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Production => "production",
            Self::Development => "development",
        })
    }
}
