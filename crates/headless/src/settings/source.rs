//! A setting as it is in effect, and where it came from.

use std::{fmt, sync::Arc};

use crate::Preset;

/// Where the value of a setting came from. What stands further down goes before what stands above it, up to
/// [`Builder`](Self::Builder).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// The default that every preset shares, or that of [`Preset::Production`].
    #[default]
    Default,
    /// The default of the chosen preset, where that differs.
    Preset(Preset),
    /// A text or a file of the configuration.
    #[non_exhaustive]
    File {
        /// What the text is called, or the file's path.
        name: Arc<str>,
        /// The line, from 1.
        line: usize,
    },
    /// A variable of the configuration, by its name.
    Variable(Arc<str>),
    /// The builder was given it, in code.
    Builder,
    /// It takes the place of what was given or is the default: the store's pulse looks, and this is for wake-ups that
    /// are lost.
    SafetyNet,
}

impl Source {
    /// Where to mend a value that was written outside of the code; empty for the others, whose name says it.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::File { .. } | Self::Variable(_) => format!(" ({self})"),
            _ => String::new(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset(preset) => write!(f, "preset {preset}"),
            Self::File { name, line } => write!(f, "file {name}, line {line}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Builder => f.write_str("builder"),
            Self::SafetyNet => f.write_str("safety net beside the pulse"),
        }
    }
}

/// A setting as it is in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// Its name: `relay.batch`.
    pub name: String,
    /// Its value, as people write it: `30 s`. Never a secret.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}

impl Setting {
    pub(crate) fn new(name: impl Into<String>, value: impl Into<String>, source: Source) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
            source,
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} ({})", self.name, self.value, self.source)
    }
}

/// A value that was given, and where.
#[derive(Clone, Debug)]
pub(crate) struct Given<T> {
    pub(crate) value: T,
    pub(crate) source: Source,
}

impl<T> Given<T> {
    pub(crate) const fn new(value: T, source: Source) -> Self {
        Self { value, source }
    }
}
