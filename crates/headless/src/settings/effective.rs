//! What is in effect once everything is put together: the polls beside a pulse, and the settings of each group.

use headless_messaging::{ConsumerSettings, Inbox, Messaging, Relay};

use super::{Setting, Source, show::Show};

/// Replaces what is not in effect as it was given, and adds the settings of each group.
pub(crate) fn show_effective(settings: &mut Vec<Setting>, messaging: &Messaging, has_store: bool) {
    if let Some(poll) = messaging
        .relay()
        .map(Relay::config)
        .map(|config| config.poll.show())
        && let Some(shown) = settings.iter_mut().find(|setting| setting.name == "relay.poll")
        && shown.value != poll
    {
        *shown = Setting::new("relay.poll", poll, Source::SafetyNet);
    }
    let form = if has_store {
        Inbox::Transactional
    } else {
        Inbox::Off
    };
    let default = ConsumerSettings::of_default(form);
    for consumer in messaging.consumers() {
        of_group(
            settings,
            consumer.group().as_str(),
            &consumer.settings(),
            &default,
        );
    }
}

/// A group's settings. One that was given its own default is shown as that.
fn of_group(settings: &mut Vec<Setting>, group: &str, given: &ConsumerSettings, default: &ConsumerSettings) {
    let source = |differs: bool| if differs { Source::Builder } else { Source::Default };
    let mut add = |name: &str, value: String, source: Source| {
        settings.push(Setting::new(format!("group.{group}.{name}"), value, source));
    };
    macro_rules! add {
        ($($name:literal: $($field:ident).+),* $(,)?) => {
            $({
                let (value, usual) = (given.$($field).+, default.$($field).+);
                add($name, value.show(), source(value != usual));
            })*
        };
    }
    let inbox = format!("{:?}", given.inbox).to_lowercase();
    add("inbox", inbox, source(given.inbox != default.inbox));
    add!("ordered": ordered, "concurrency": concurrency);
    // Its default goes with the concurrency.
    let usual = given.prefetch == default.prefetch || given.prefetch.get() == 2 * given.concurrency;
    add("prefetch", given.prefetch.get().show(), source(!usual));
    add!("timeout": timeout, "lease": lease, "visibility": visibility);
    for (name, value, usual) in [
        (
            "retry.inline",
            given.retry.inline_attempts(),
            default.retry.inline_attempts(),
        ),
        (
            "retry.rounds",
            given.retry.max_rounds(),
            default.retry.max_rounds(),
        ),
    ] {
        add(name, value.show(), source(value != usual));
    }
    let breaker = given.circuit_breaker;
    let shown = match breaker.failures() {
        None => "off".to_owned(),
        Some(failures) => format!("after {failures} failures, open {}", breaker.open_times().show()),
    };
    add(
        "circuit_breaker",
        shown,
        source(breaker != default.circuit_breaker),
    );
    if let (Some(park), Some(usual)) = (given.park, default.park) {
        let poll = if park.poll == park.effective_poll {
            source(park.poll != usual.poll)
        } else {
            Source::SafetyNet
        };
        add("park.poll", park.effective_poll.show(), poll);
        let (limits, usual) = (park.limits, usual.limits);
        let per_key = source(limits.per_key != usual.per_key);
        add("park.most_per_key", limits.per_key.get().show(), per_key);
        let per_group = source(limits.per_group != usual.per_group);
        add("park.most", limits.per_group.get().show(), per_group);
    }
    add!("unknown_type_delay": unknown_type_delay);
    let start = format!("{:?}", given.start_from).to_lowercase();
    add(
        "start_from",
        start,
        source(given.start_from != default.start_from),
    );
    add!("per_instance": per_instance);
}
