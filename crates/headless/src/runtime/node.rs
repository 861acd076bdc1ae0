//! What this runtime says of itself to its store, with each heartbeat.

use std::time::Duration;

use headless_abstractions::{ControlSubject, ControlVersion, NodeFacts, Result};
use headless_core::{Background, Environment, TaskStatus};
use headless_messaging::{ConsumerHandle, ControlHandle, Lags, Messaging, Relay};

use super::{ControlReport, GroupReport, NodeReport, RelayReport, SubscriptionReport, TaskReport};

/// The longest error that is told with a heartbeat, in characters.
const MOST_ERROR: usize = 200;
/// The most subjects that are told as unknown.
const MOST_UNKNOWN: usize = 20;

/// Lets this runtime say what it does, with each heartbeat.
pub(super) fn tell(messaging: &Messaging, environment: &Environment) {
    let Some(membership) = messaging.membership() else {
        return;
    };
    let teller = Teller {
        began: environment.clock.monotonic(),
        environment: environment.clone(),
        consumers: messaging.consumers().to_vec(),
        relay: messaging.relay().cloned(),
        control: messaging.control().cloned(),
        lags: messaging.lags().clone(),
    };
    membership.say(move || teller.tell());
}

/// What a runtime says of itself, with each heartbeat.
struct Teller {
    began: Duration,
    environment: Environment,
    consumers: Vec<ConsumerHandle>,
    relay: Option<Relay>,
    control: Option<ControlHandle>,
    lags: Lags,
}

impl Teller {
    fn tell(&self) -> NodeFacts {
        let mut told = self.told();
        facts(&told)
            .or_else(|_too_large| {
                told.groups.clear();
                told.tasks.clear();
                told.is_shortened = true;
                facts(&told)
            })
            .unwrap_or_else(|error| {
                tracing::error!(error, "this node cannot say what it does");
                NodeFacts::none()
            })
    }

    fn told(&self) -> NodeReport {
        let now = self.environment.clock.monotonic();
        let background: &Background = &self.environment.background;
        let relay = self.relay.as_ref().map(Relay::status);
        NodeReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.saturating_sub(self.began).as_secs(),
            resident_bytes: resident_bytes(),
            relay: relay.map(|status| RelayReport {
                relayed: status.relayed,
                failing: status.failing,
            }),
            control: self.control.as_ref().map(control),
            groups: self
                .consumers
                .iter()
                .map(|consumer| self.group(consumer, now))
                .collect(),
            tasks: background
                .statuses()
                .into_iter()
                .map(|(name, status)| task(name, &status, now))
                .collect(),
            is_shortened: false,
        }
    }

    fn group(&self, consumer: &ConsumerHandle, now: Duration) -> GroupReport {
        let stats = consumer.stats();
        let lag = self.lags.of(consumer.group());
        let subscriptions = consumer.subscriptions().into_iter();
        GroupReport {
            group: consumer.group().to_string(),
            instance_of: (consumer.configured_group() != consumer.group())
                .then(|| consumer.configured_group().to_string()),
            in_flight: consumer.in_flight(),
            concurrency: consumer.concurrency(),
            handled: stats.handled,
            failed: stats.failed,
            lag: lag.map(|lag| lag.messages),
            lag_seconds_ago: lag.map(|lag| now.saturating_sub(lag.asked).as_secs()),
            subscriptions: subscriptions
                .map(|subscription| SubscriptionReport {
                    topic: subscription.topic.to_string(),
                    paused: subscription.paused.iter().map(ToString::to_string).collect(),
                    circuit_open: subscription.circuit_open,
                })
                .collect(),
        }
    }
}

/// The memory that this process has, where the system says it in a file.
fn resident_bytes() -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    resident_of(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// As `VmRSS:     5120 kB` says it.
fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The facts, or that they are too large.
fn facts(told: &NodeReport) -> Result<NodeFacts, String> {
    let text = serde_json::to_string(told).map_err(|error| error.to_string())?;
    NodeFacts::new(text).map_err(|error| error.to_string())
}

fn control(control: &ControlHandle) -> ControlReport {
    let status = control.status();
    let unknown = status.unknown.iter().take(MOST_UNKNOWN);
    ControlReport {
        applied: status.applied.map(ControlVersion::get),
        unknown: unknown.map(ControlSubject::to_text).collect(),
    }
}

fn task(name: String, status: &TaskStatus, now: Duration) -> TaskReport {
    TaskReport {
        name,
        runs: status.runs,
        failing: status.failing,
        last_error: status
            .last_error
            .as_ref()
            .map(|error| error.chars().take(MOST_ERROR).collect()),
        last_run_seconds_ago: status.last_run.map(|at| now.saturating_sub(at).as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_read_the_memory_when_the_system_says_it() {
        let status = "Name:\theadless\nVmHWM:\t    9000 kB\nVmRSS:\t    5120 kB\nThreads:\t4\n";
        assert_eq!(resident_of(status), Some(5_120 * 1_024));
        assert_eq!(resident_of("Name:\theadless\n"), None);
        assert_eq!(resident_bytes().is_some(), cfg!(target_os = "linux"));
    }
}
