//! Every setting of a runtime: its name, its default under each preset, and where its value came from.

use std::time::Duration;

use headless_core::{Backoff, MembershipConfig};

use crate::{Builder, Preset};

mod effective;
mod read;
mod show;
mod source;

pub(crate) use effective::{show_effective, show_group_setting};
pub(crate) use read::{Read, Written};
use show::Show;
pub(crate) use source::Given;
pub use source::{Setting, Source};

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
        $name:literal, $field:ident: $type:ty = $default:expr
            $(, development $development:expr)? $(, least $least:expr)?;
    )*) => {
        /// The name of every setting, in the order of the table.
        pub(crate) const NAMES: &[&str] = &[$($name),*];

        /// What the builder was given; `None` leaves the default.
        #[derive(Clone, Debug, Default)]
        pub(crate) struct Settings {
            pub(crate) preset: Preset,
            pub(crate) preset_source: Source,
            $($field: Option<Given<$type>>,)*
        }

        impl Settings {
            $(pub(crate) fn $field(&self) -> $type {
                match &self.$field {
                    Some(given) => given.value,
                    None => default_of!(self.preset, $default $(, $development)?),
                }
            })*

            /// Sets the one of this name; `None` when there is none.
            ///
            /// # Errors
            /// What is wrong with the value, to be read on from the setting's name.
            pub(crate) fn set(&mut self, name: &str, written: &Written, source: Source) -> Option<Result<(), String>> {
                Some(match name {
                    $($name => <$type>::read(written).map(|value| self.$field = Some(Given::new(value, source))),)*
                    _ => return None,
                })
            }

            /// What is out of its bounds, each with the setting, where it was given, and the bound.
            pub(crate) fn problems(&self) -> Vec<String> {
                let mut problems = Vec::new();
                $($(if let Some(given) = &self.$field {
                    problems.extend(under($name, given, &$least));
                })?)*
                problems
            }

            /// Every setting, in the order of the table.
            pub(crate) fn explain(&self) -> Vec<Setting> {
                vec![$({
                    let [shared, preset]: [$type; 2] =
                        [$default, default_of!(self.preset, $default $(, $development)?)];
                    let source = match &self.$field {
                        Some(given) => given.source.clone(),
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
                    self.settings.$field = Some(Given::new(value, Source::Builder));
                    self
                }
            )*
        }
    };
}

const DAY: Duration = Duration::from_hours(24);
/// The least of what loops wait.
const LEAST: Duration = Duration::from_millis(10);

settings! {
    /// The longest time that handlers have to end after a signal.
    "shutdown.timeout", shutdown_timeout: Duration = Duration::from_secs(30), development Duration::from_secs(5);
    /// The largest encoded payload in bytes, where the transport's own limit is not smaller.
    "publish.max_payload", max_payload: usize = 1024 * 1024, least 1;
    /// Whether this process relays the outbox. Any number of processes may.
    "relay.enabled", relays: bool = true;
    /// The most messages of one claim and one send.
    "relay.batch", relay_batch: usize = 100, least 1;
    /// How long claimed messages are held without renewal.
    "relay.lease", relay_lease: Duration = Duration::from_secs(30), least LEAST;
    /// The longest time between two looks into the outbox, for wake-ups that were lost, where the store has no pulse to look.
    "relay.poll", relay_poll: Duration = Duration::from_secs(1), development Duration::from_millis(200), least LEAST;
    /// How often a message that the transport refuses is tried before it becomes a dead letter.
    "relay.attempts", relay_attempts: u32 = 5, least 1;
    /// How long to wait between these attempts: up to the first time, doubled each time up to the second.
    "relay.backoff", relay_backoff: Backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_mins(1));
    /// How often an idle node asks its store what is due, when nothing is due sooner.
    "pulse.interval", pulse_interval: Duration = Duration::from_secs(1), development Duration::from_millis(200), least LEAST;
    /// Whether this process registers as a node, where the store watches over its nodes. All processes of a service do, or none.
    "membership.enabled", registers: bool = true;
    /// The longest time between two heartbeats of a node.
    "membership.heartbeat", membership_heartbeat: Duration = Duration::from_secs(10), least LEAST;
    /// A node is suspected when it has been silent for this long.
    "membership.suspect_after", membership_suspect_after: Duration = Duration::from_secs(30), least LEAST;
    /// A node is dead when it has been silent for this long, at least four heartbeats: what it held is free then.
    "membership.dead_after", membership_dead_after: Duration = Duration::from_mins(1), least LEAST;
    /// Nodes that have left or died are forgotten after this.
    "membership.forget_after", membership_forget_after: Duration = DAY;
    /// The longest time between two looks at what operators want of this service, where no pulse tells of a change before.
    "control.interval", control_interval: Duration = Duration::from_secs(5), development Duration::from_secs(1), least LEAST;
    /// Whether this process removes what is over. Any number of processes may; of a service, one has to.
    "purge.enabled", purges: bool = true;
    /// The longest time between two rounds of removing what is over.
    "purge.interval", purge_interval: Duration = Duration::from_mins(1), least LEAST;
    /// The most rows that one statement removes.
    "purge.batch", purge_batch: usize = 1_000, least 1;
    /// The longest time between two counts of what waits in the store, for the gauges of a process that relays.
    "metrics.interval", metrics_interval: Duration = Duration::from_secs(30), least LEAST;
    /// How long the inbox knows what it has processed: a replay of anything older is processed again.
    "keep.marks", keep_marks: Duration = 7 * DAY, least LEAST;
    /// How long sent messages are kept, where the outbox keeps a history.
    "keep.outbox_history", keep_outbox_history: Duration = 7 * DAY;
    /// How long dead letters are kept.
    "keep.dead_letters", keep_dead_letters: Duration = 30 * DAY;
}

impl Settings {
    /// How this node keeps its membership.
    pub(crate) fn membership(&self) -> MembershipConfig {
        MembershipConfig::default()
            .with_heartbeat(self.membership_heartbeat())
            .with_silence(self.membership_suspect_after(), self.membership_dead_after())
            .with_forget_after(self.membership_forget_after())
    }
}

/// Says that a value is under the least that it may be.
fn under<T: Show + PartialOrd>(name: &str, given: &Given<T>, least: &T) -> Option<String> {
    (given.value < *least).then(|| {
        let (value, least, place) = (given.value.show(), least.show(), given.source.place());
        format!("{name} is {value}{place}, the least is {least}")
    })
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
            relay_batch: Some(Given::new(100, Source::Builder)),
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
        assert_eq!(settings.membership(), MembershipConfig::default());
        assert_eq!(
            settings.control_interval(),
            headless_messaging::ControlConfig::new("orders").interval
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
            settings.metrics_interval(),
            headless_messaging::GaugesConfig::default().interval
        );
        assert_eq!(
            settings.max_payload(),
            headless_messaging::OutgoingLimits::default().max_payload
        );
    }
}
