//! Every setting of a builder, and where it came from.

use headless_messaging::GroupSetting;

use super::{Builder, Configured, Topic};
use crate::{
    Setting, Source,
    config::Endpoint,
    settings::{Given, show_group_setting},
};

impl Builder {
    /// Every setting as it is given or stands by default, and where it came from; what a configuration names is not
    /// connected to. [`Runtime::explain`](crate::Runtime::explain) has those of each group too. Secrets are not shown.
    #[must_use]
    pub fn explain(&self) -> Vec<Setting> {
        match &self.environment {
            Some(environment) => self.explain_of(&environment.node),
            None => self.explain_of(&self.label()),
        }
    }

    pub(super) fn explain_of(&self, node: &str) -> Vec<Setting> {
        let (service, of_service) = match &self.service {
            Some(service) => (&*service.value, service.source.clone()),
            None => ("none", Source::Default),
        };
        let of_node = match (&self.node, &self.environment) {
            (_, Some(_)) => Source::Builder,
            (Some(node), None) => node.source.clone(),
            (None, None) => Source::Default,
        };
        let preset = self.settings.preset.to_string();
        let mut settings = vec![
            Setting::new("service", service, of_service),
            Setting::new("node", node, of_node),
            Setting::new("preset", preset, self.settings.preset_source.clone()),
        ];
        let store = self
            .store
            .as_ref()
            .map(|store| format!("{} at {}", store.info.name, store.info.endpoint));
        let transport = self.transport.as_ref().map(|transport| {
            let info = transport.info();
            format!("{} at {}", info.name, info.endpoint)
        });
        of_side(&mut settings, "store", store, self.configured.store.as_ref());
        of_side(
            &mut settings,
            "transport",
            transport,
            self.configured.transport.as_ref(),
        );
        settings.push(Setting::new(
            "codec",
            self.codecs.writer().content_type(),
            self.codec.clone(),
        ));
        settings.extend(self.topics.iter().map(of_topic));
        settings.extend(self.settings.explain());
        settings.extend(self.groups.iter().flat_map(|(group, given)| {
            let of_group = move |given: &Given<GroupSetting>| of_group(group, given);
            given.values().map(of_group)
        }));
        settings
    }
}

fn of_side(settings: &mut Vec<Setting>, side: &str, connected: Option<String>, endpoint: Option<&Endpoint>) {
    let source = Configured::source(endpoint, connected.is_some());
    let value = match (connected, endpoint) {
        (Some(connected), _) => connected,
        (None, Some(endpoint)) => endpoint.url.to_string(),
        (None, None) => "none".to_owned(),
    };
    settings.push(Setting::new(side, value, source));
    if let Some(source) = endpoint.and_then(|endpoint| endpoint.password.clone()) {
        settings.push(Setting::new(format!("{side}.password"), "***", source));
    }
}

fn of_group(group: &str, given: &Given<GroupSetting>) -> Setting {
    let (name, source) = (given.value.name(), given.source.clone());
    Setting::new(
        format!("group.{group}.{name}"),
        show_group_setting(&given.value),
        source,
    )
}

fn of_topic(topic: &Topic) -> Setting {
    let order = match topic.order.to_order() {
        Ok(order) => match order.partitions() {
            Some(partitions) => format!("{} partitions", partitions.get()),
            None => "no order".to_owned(),
        },
        Err(_) => "a wrong number of partitions".to_owned(),
    };
    let required = if topic.required { ", required" } else { "" };
    Setting::new(
        format!("topic.{}", topic.name),
        format!("{order}{required}"),
        topic.source.clone(),
    )
}
