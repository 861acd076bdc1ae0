//! What is in effect once everything is put together: the polls beside a pulse, and the settings of each group.

use std::collections::BTreeMap;

use headless_messaging::{ConsumerSettings, GroupSetting, Inbox, Messaging, Relay};

use super::{Setting, Source, show::Show};

/// What a configuration sets of a group, as people write it.
pub(crate) fn show_group_setting(setting: &GroupSetting) -> String {
    match setting {
        GroupSetting::Concurrency(most) => most.show(),
        GroupSetting::Prefetch(most) => most.get().show(),
        GroupSetting::Timeout(time) | GroupSetting::Lease(time) | GroupSetting::Visibility(time) => {
            time.show()
        }
        other => format!("{other:?}"),
    }
}

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
    let is_of_group = |setting: &mut Setting| setting.name.starts_with(OF_GROUP);
    let mut configured: BTreeMap<String, Setting> = settings
        .extract_if(.., is_of_group)
        .map(|setting| (setting.name.clone(), setting))
        .collect();
    for consumer in messaging.consumers() {
        let began = settings.len();
        let (group, name) = (consumer.group().as_str(), consumer.configured_group());
        of_group(settings, group, &consumer.settings(), &default);
        for shown in &mut settings[began..] {
            let field = shown.name.split_at(OF_GROUP.len() + group.len()).1;
            if let Some(given) = configured.remove(&format!("{OF_GROUP}{name}{field}")) {
                shown.source = given.source;
            }
        }
    }
    // One configuration may be of several processes, each with groups of its own.
    settings.extend(configured.into_values().map(|mut setting| {
        setting.value.push_str(", without such a group here");
        setting
    }));
}

/// What the names of a group's settings begin with.
const OF_GROUP: &str = "group.";

/// A group's settings. One that was given its own default is shown as that.
fn of_group(settings: &mut Vec<Setting>, group: &str, given: &ConsumerSettings, default: &ConsumerSettings) {
    let source = |differs: bool| if differs { Source::Builder } else { Source::Default };
    let mut add = |name: &str, value: String, source: Source| {
        settings.push(Setting::new(format!("{OF_GROUP}{group}.{name}"), value, source));
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
