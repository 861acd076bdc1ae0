//! Every setting of a runtime: its name, its default under each preset, and where its value came from.

use std::{fmt, time::Duration};

use headless_core::Backoff;

use crate::{Builder, Preset};

mod effective;
mod show;

pub(crate) use effective::show_effective;
use show::Show;

/// Where the value of a setting came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// The default that every preset shares, or that of [`Preset::Production`].
    Default,
    /// The default of the chosen preset, where that differs.
    Preset(Preset),
    /// The builder was given it.
    Builder,
    /// It takes the place of what was given or is the default: the store's pulse looks, and this is for wake-ups that
    /// are lost.
    SafetyNet,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset(preset) => write!(f, "preset {preset}"),
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
    /// Its value, as people write it: `30 s`.
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

macro_rules! default_of {
    ($preset:expr, $default:expr) => {
        $default
    };
    ($preset:expr, $default:expr, $development:expr) => {
        match $preset {
            Preset::Production => $default,
            Preset::Development => $development,
        }
    };
}

/// The one table of settings: it makes the struct, the setters of the builder, what `explain` prints, and what
/// `docs/settings.md` is checked against.
macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $name:literal, $field:ident: $type:ty = $default:expr $(, development $development:expr)?;
    )*) => {
        /// What the builder was given; `None` leaves the default.
        #[derive(Clone, Debug, Default)]
        pub(crate) struct Settings {
            pub(crate) preset: Preset,
            $($field: Option<$type>,)*
        }

        impl Settings {
            $(pub(crate) fn $field(&self) -> $type {
                self.$field.unwrap_or(default_of!(self.preset, $default $(, $development)?))
            })*

            /// Every setting, in the order of the table.
            pub(crate) fn explain(&self) -> Vec<Setting> {
                vec![$({
                    let [shared, preset]: [$type; 2] =
                        [$default, default_of!(self.preset, $default $(, $development)?)];
                    let source = match self.$field {
                        Some(_) => Source::Builder,
                        None if preset != shared => Source::Preset(self.preset),
                        None => Source::Default,
                    };
                    Setting::new($name, self.$field().show(), source)
                }),*]
            }

            /// The sentences of the table, in its order.
            #[cfg(test)]
            fn meanings() -> Vec<String> {
                vec![$([$($doc),+].concat().trim().to_owned()),*]
            }
        }

        /// Settings. `docs/settings.md` has their defaults.
        impl Builder {
            $(
                $(#[doc = $doc])+
                #[doc = concat!("\n\nSetting `", $name, "`.")]
                pub fn $field(mut self, value: $type) -> Self {
                    self.settings.$field = Some(value);
                    self
                }
            )*
        }
    };
}

const DAY: Duration = Duration::from_hours(24);

settings! {
    /// The longest time that handlers have to end after a signal.
    "shutdown.timeout", shutdown_timeout: Duration = Duration::from_secs(30), development Duration::from_secs(5);
    /// The largest encoded payload in bytes, where the transport's own limit is not smaller.
    "publish.max_payload", max_payload: usize = 1024 * 1024;
    /// Whether this process relays the outbox. Any number of processes may.
    "relay.enabled", relays: bool = true;
    /// The most messages of one claim and one send.
    "relay.batch", relay_batch: usize = 100;
    /// How long claimed messages are held without renewal.
    "relay.lease", relay_lease: Duration = Duration::from_secs(30);
    /// The longest time between two looks into the outbox, for wake-ups that were lost, where the store has no pulse to look.
    "relay.poll", relay_poll: Duration = Duration::from_secs(1), development Duration::from_millis(200);
    /// How often a message that the transport refuses is tried before it becomes a dead letter.
    "relay.attempts", relay_attempts: u32 = 5;
    /// How long to wait between these attempts: up to the first time, doubled each time up to the second.
    "relay.backoff", relay_backoff: Backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_mins(1));
    /// How often an idle node asks its store what is due, when nothing is due sooner.
    "pulse.interval", pulse_interval: Duration = Duration::from_secs(1), development Duration::from_millis(200);
    /// The longest time between two rounds of removing what is over.
    "purge.interval", purge_interval: Duration = Duration::from_mins(1);
    /// The most rows that one statement removes.
    "purge.batch", purge_batch: usize = 1_000;
    /// How long the inbox knows what it has processed: a replay of anything older is processed again.
    "keep.marks", keep_marks: Duration = 7 * DAY;
    /// How long sent messages are kept, where the outbox keeps a history.
    "keep.outbox_history", keep_outbox_history: Duration = 7 * DAY;
    /// How long dead letters are kept.
    "keep.dead_letters", keep_dead_letters: Duration = 30 * DAY;
}

impl Settings {
    /// What is wrong, each with the setting and its bound. Those of the relay are checked with the plan.
    pub(crate) fn problems(&self) -> Vec<String> {
        const LEAST: Duration = Duration::from_millis(10);
        let mut problems = Vec::new();
        for (name, value) in [
            ("pulse.interval", self.pulse_interval()),
            ("purge.interval", self.purge_interval()),
            ("keep.marks", self.keep_marks()),
        ] {
            if value < LEAST {
                problems.push(format!(
                    "{name} is {}, the least is {}",
                    value.show(),
                    LEAST.show()
                ));
            }
        }
        for (name, value) in [
            ("publish.max_payload", self.max_payload()),
            ("purge.batch", self.purge_batch()),
        ] {
            if value == 0 {
                problems.push(format!("{name} is 0, the least is 1"));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(preset: Preset) -> Vec<Setting> {
        Settings {
            preset,
            ..Settings::default()
        }
        .explain()
    }

    #[test]
    fn should_list_every_setting_with_its_defaults_in_the_documentation() {
        let documented: Vec<&str> = include_str!("../../../docs/settings.md")
            .lines()
            .filter(|line| line.starts_with("| `"))
            .collect();
        let rows = of(Preset::Production)
            .into_iter()
            .zip(of(Preset::Development))
            .zip(Settings::meanings());
        let code: Vec<String> = rows
            .map(|((production, development), meaning)| {
                format!(
                    "| `{}` | {} | {} | {meaning} |",
                    production.name, production.value, development.value
                )
            })
            .collect();
        assert_eq!(
            documented,
            code,
            "docs/settings.md should have these rows:\n{}",
            code.join("\n")
        );
    }

    #[test]
    fn should_say_where_each_value_came_from_when_asked() {
        let settings = Settings {
            preset: Preset::Development,
            relay_batch: Some(100),
            ..Settings::default()
        };
        let lines: Vec<String> = settings.explain().iter().map(ToString::to_string).collect();
        assert!(
            lines.contains(&"relay.batch = 100 (builder)".to_owned()),
            "{lines:?}"
        );
        assert!(
            lines.contains(&"relay.poll = 200 ms (preset development)".to_owned()),
            "{lines:?}"
        );
        assert!(
            lines.contains(&"keep.marks = 7 d (default)".to_owned()),
            "{lines:?}"
        );
    }

    #[test]
    fn should_have_the_defaults_of_the_parts_when_the_preset_is_production() {
        let settings = Settings::default();
        let relay = headless_messaging::RelayConfig::default();
        assert_eq!(
            (
                settings.relay_batch(),
                settings.relay_lease(),
                settings.relay_poll()
            ),
            (relay.batch, relay.lease, relay.poll)
        );
        assert_eq!(
            (settings.relay_attempts(), settings.relay_backoff()),
            (relay.attempts, relay.backoff)
        );
        let purge = headless_messaging::PurgeConfig::default();
        assert_eq!(
            (
                settings.purge_interval(),
                settings.purge_batch(),
                settings.keep_marks()
            ),
            (purge.interval, purge.batch, purge.marks)
        );
        assert_eq!(
            (settings.keep_outbox_history(), settings.keep_dead_letters()),
            (purge.outbox_history, purge.dead_letters)
        );
        assert_eq!(
            settings.pulse_interval(),
            headless_messaging::PulseConfig::default().interval
        );
        assert_eq!(
            settings.max_payload(),
            headless_messaging::OutgoingLimits::default().max_payload
        );
    }
}
