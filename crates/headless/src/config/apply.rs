//! A configuration becomes a builder.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use headless_abstractions::GroupName;
use headless_messaging::{GroupSetting, Ordered};

use super::{
    Config,
    endpoint::Draft,
    keys::{Meaning, OfGroup, OfTopic, Side},
    layer::{Entry, Layer},
};
use crate::{
    Builder, Preset, Source,
    settings::{Given, Read, Written},
};

/// What is said of one topic.
#[derive(Default)]
struct Topic {
    partitions: Option<u16>,
    required: bool,
    source: Source,
}

/// What is gathered over all texts and variables before it can be judged.
#[derive(Default)]
struct Gathered {
    store: Draft,
    transport: Draft,
    topics: BTreeMap<String, Topic>,
    problems: Vec<String>,
}

impl Config {
    /// Gives the builder everything, and every problem.
    pub(crate) fn apply(&self, builder: &mut Builder) {
        let mut gathered = Gathered {
            problems: self.problems.clone(),
            ..Gathered::default()
        };
        for (layer, each) in self.layers().enumerate() {
            for entry in each.entries() {
                gathered.take(builder, entry, layer);
            }
        }
        let Gathered {
            store,
            transport,
            topics,
            mut problems,
        } = gathered;
        builder.configured.is_named = [store.is_named(), transport.is_named()];
        builder.configured.store = store.finish(Side::Store, &mut problems);
        builder.configured.transport = transport.finish(Side::Transport, &mut problems);
        for (name, topic) in topics {
            let order = topic.partitions.map_or(Ordered::no(), Ordered::partitions);
            builder.declare(name, order, topic.required, topic.source);
        }
        let is_named = |layer: &Layer| {
            let mut entries = layer.entries().iter();
            entries.any(|entry| *entry.key.meaning() == Meaning::Service)
        };
        // A text that cannot be read may name it.
        if self.problems.is_empty() && !self.layers().any(is_named) {
            problems.push(format!(
                "service is not set: name the service, as service = \"orders\" or with the variable {}",
                super::keys::variable("service")
            ));
        }
        builder.problems.extend(problems);
    }

    /// What goes before what stands before it.
    fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.texts.iter().chain([&self.variables])
    }
}

impl Gathered {
    fn take(&mut self, builder: &mut Builder, entry: &Entry, layer: usize) {
        let Entry { key, written, source } = entry;
        let given = |value: String| Given::new(value, source.clone());
        let read = match key.meaning() {
            Meaning::Service => String::read(written).map(|name| builder.service = Some(given(name))),
            Meaning::Node => String::read(written).map(|label| builder.node = Some(given(label))),
            Meaning::Preset => Preset::read(written).map(|preset| {
                builder.settings.preset = preset;
                builder.settings.preset_source = source.clone();
            }),
            Meaning::Side(side, part) => {
                let draft = match side {
                    Side::Store => &mut self.store,
                    Side::Transport => &mut self.transport,
                };
                draft.take(*part, entry, layer, &mut self.problems);
                Ok(())
            }
            Meaning::Topic(name, of) => {
                let topic = self.topics.entry(name.clone()).or_default();
                topic.source = source.clone();
                match of {
                    OfTopic::Itself => written.empty(),
                    OfTopic::Partitions => u16::read(written).map(|count| topic.partitions = Some(count)),
                    OfTopic::Required => bool::read(written).map(|required| topic.required = required),
                }
            }
            Meaning::Group(name, of) => group_setting(*of, written).and_then(|setting| {
                GroupName::parse(name).map_err(|error| format!("names no group: {error}"))?;
                let settings = builder.groups.entry(name.clone()).or_default();
                settings.extend(setting.map(|setting| (setting.name(), Given::new(setting, source.clone()))));
                Ok(())
            }),
            Meaning::Setting => builder
                .settings
                .set(key.name(), written, source.clone())
                .unwrap_or(Ok(())),
            Meaning::Unknown => {
                let nearest = key.nearest();
                let key = match source {
                    Source::Variable(name) => name.to_string(),
                    _ => key.to_string(),
                };
                self.problems.push(format!(
                    "{key}{} is unknown: do you mean {nearest}?",
                    match source {
                        Source::Variable(_) => String::new(),
                        _ => source.place(),
                    }
                ));
                Ok(())
            }
        };
        if let Err(problem) = read {
            self.problems.push(format!("{key} {problem}{}", source.place()));
        }
    }
}

/// What is set of a group, if anything is.
fn group_setting(of: OfGroup, written: &Written) -> Result<Option<GroupSetting>, String> {
    Ok(Some(match of {
        OfGroup::Itself => return written.empty().map(|()| None),
        OfGroup::Concurrency => GroupSetting::Concurrency(usize::read(written)?),
        OfGroup::Prefetch => GroupSetting::Prefetch(NonZeroUsize::read(written)?),
        OfGroup::Timeout => GroupSetting::Timeout(Duration::read(written)?),
        OfGroup::Lease => GroupSetting::Lease(Duration::read(written)?),
        OfGroup::Visibility => GroupSetting::Visibility(Duration::read(written)?),
    }))
}
