//! `headless groups list`.

use std::io::{self, Write};

use anyhow::Result;
use headless::ControlEntry;
use serde_json::json;

use super::args::ListArgs;
use crate::{
    operator::{self, Answer},
    survey::{self, Group, Service, json, span, wish},
    text,
};

/// How much of a name is shown.
const NAME: usize = 40;

/// Lists the groups of a service.
pub(super) async fn run(args: &ListArgs) -> Result<Answer> {
    let place = &args.service.place;
    let store = operator::store(place).await?;
    let nodes = survey::nodes(&store).await?;
    let service = Service::read(&store, &args.service.service, &nodes).await?;
    let groups = service.groups();
    let mut out = io::stdout().lock();
    if place.json {
        let groups: Vec<_> = groups.iter().map(json::group).collect();
        writeln!(out, "{}", json!({ "service": service.name, "groups": groups }))?;
    } else {
        write!(out, "{}", table(&groups))?;
    }
    Ok(Answer::Whole)
}

/// A line for each group, and one for each of its topics.
pub(crate) fn table(groups: &[Group<'_>]) -> String {
    let head = [
        "GROUP",
        "TOPIC",
        "NODES",
        "LAG",
        "IN FLIGHT",
        "CONCURRENCY",
        "PAUSED",
        "CIRCUIT",
        "WANTED",
        "BY",
        "SINCE",
    ];
    let rows: Vec<_> = groups.iter().flat_map(rows).collect();
    text::table(head, &rows)
}

fn rows(group: &Group<'_>) -> Vec<[String; 11]> {
    let concurrency: Vec<_> = group.concurrency.iter().map(ToString::to_string).collect();
    let [wanted, by, since] = wanted(group.wanted);
    let mut rows = vec![[
        text::short(group.name, NAME),
        String::new(),
        group.nodes.to_string(),
        group.lag.map_or("?".to_owned(), |lag| lag.to_string()),
        group.in_flight.to_string(),
        concurrency.join(", "),
        String::new(),
        String::new(),
        wanted,
        by,
        since,
    ]];
    for (name, topic) in &group.topics {
        let paused: Vec<_> = topic
            .paused
            .iter()
            .map(|(reason, nodes)| format!("{reason} ({nodes})"))
            .collect();
        let circuit = match topic.circuits_open {
            0 => String::new(),
            open => format!("open ({open})"),
        };
        let [wanted, by, since] = self::wanted(topic.wanted);
        rows.push([
            String::new(),
            text::short(name, NAME),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            text::short(&paused.join(", "), NAME),
            circuit,
            wanted,
            by,
            since,
        ]);
    }
    rows
}

/// What is wanted, by whom, since when.
fn wanted(entry: Option<&ControlEntry>) -> [String; 3] {
    let by = entry.map_or(String::new(), |entry| text::short(&entry.changed_by, NAME));
    let since = entry.map_or(String::new(), |entry| format!("{} ago", span(entry.changed)));
    [wish(entry), by, since]
}
