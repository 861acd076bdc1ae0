//! `headless status`: how much there is in a store, who uses it, and how they are doing.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    time::Duration,
};

use anyhow::Result;
use clap::Args;
use headless::{Depths, GroupName, Origin};
use serde_json::{Value, json};

use crate::{
    groups,
    operator::{self, Answer, PlaceArgs, failed},
    survey::{self, Node, Service, json, span, state},
    text,
};

/// How much of a name, and of an error, is shown.
const NAME: usize = 40;
const ERROR: usize = 100;

/// The arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Of this service alone; without it, of each that a node belongs to
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Also nodes that have left or died
    #[arg(long)]
    pub(crate) ended: bool,
}

/// Reads it all, and prints it.
pub(crate) async fn run(args: &StatusArgs) -> Result<Answer> {
    let store = operator::store(&args.place).await?;
    let nodes = survey::nodes(&store).await?;
    let names: BTreeSet<String> = match &args.service {
        Some(name) => BTreeSet::from([name.clone()]),
        None => nodes.iter().map(|node| node.entry.service.to_string()).collect(),
    };
    let mut services = Vec::new();
    for name in names {
        services.push(Service::read(&store, &name, &nodes).await?);
    }
    let groups: BTreeSet<GroupName> = services
        .iter()
        .flat_map(|service| service.known().into_keys())
        .filter_map(|name| GroupName::parse(name).ok())
        .collect();
    let depths = store.depths(&Vec::from_iter(groups)).await.map_err(failed)?;
    let mut out = io::stdout().lock();
    if args.place.json {
        writeln!(out, "{}", object(store.name(), &depths, &services))?;
    } else {
        write!(out, "{}{}", of_depths(&depths), of_services(&services))?;
    }
    Ok(Answer::Whole)
}

fn object(store: &str, depths: &Depths, services: &[Service]) -> Value {
    let outbox = depths.outbox.as_ref().map(|outbox| {
        json!({
            "delayed": outbox.delayed,
            "ready": outbox.ready,
            "leased": outbox.leased,
            "retrying": outbox.retrying,
            "oldest_seconds": outbox.oldest.map(|oldest| oldest.as_secs()),
        })
    });
    let letters = depths.dead_letters.iter().map(|letters| {
        json!({
            "origin": origin(&letters.origin),
            "topic": letters.topic.as_str(),
            "cause": letters.cause.as_str(),
            "count": letters.count,
            "oldest_seconds": letters.oldest.as_secs(),
        })
    });
    let services = services.iter().map(|service| {
        let groups = service
            .groups()
            .iter()
            .map(|group| of_group(group, depths))
            .collect::<Vec<_>>();
        json!({
            "service": service.name,
            "nodes": service.nodes.iter().map(json::node).collect::<Vec<_>>(),
            "groups": groups,
        })
    });
    json!({
        "store": store,
        "outbox": outbox,
        "inbox": depths.inbox.as_ref().map(json::inbox),
        "dead_letters": letters.collect::<Vec<_>>(),
        "services": services.collect::<Vec<_>>(),
    })
}

fn of_group(group: &survey::Group<'_>, depths: &Depths) -> Value {
    let mut object = json::group(group);
    let inbox = depths.groups.iter().find(|(name, _)| name.as_str() == group.name);
    object["inbox"] = inbox.map_or(Value::Null, |(_, stats)| json::inbox(stats));
    object
}

fn origin(origin: &Origin) -> Value {
    match origin {
        Origin::Group(group) => json!({ "group": group.as_str() }),
        Origin::Relay => json!({ "relay": true }),
    }
}

fn of_depths(depths: &Depths) -> String {
    let mut shown = String::new();
    if let Some(outbox) = &depths.outbox {
        let oldest = outbox.oldest.map_or(String::new(), |oldest| {
            format!(", the oldest is due for {}", span(oldest))
        });
        shown.push_str(&format!(
            "outbox: {} ready, {} leased, {} delayed, {} retrying{oldest}\n",
            outbox.ready, outbox.leased, outbox.delayed, outbox.retrying
        ));
    }
    if let Some(inbox) = &depths.inbox {
        shown.push_str(&format!(
            "inbox: {} running, {} parked, {} processed, {} dead, {} discarded\n",
            inbox.running, inbox.parked, inbox.processed, inbox.dead, inbox.discarded
        ));
    }
    for (name, stats) in &depths.groups {
        shown.push_str(&format!(
            "inbox of {name}: {} running, {} parked, {} processed, {} dead, {} discarded\n",
            stats.running, stats.parked, stats.processed, stats.dead, stats.discarded
        ));
    }
    if !depths.dead_letters.is_empty() {
        let row = |letters: &headless::DeadLetterStats| {
            let from = match &letters.origin {
                Origin::Group(group) => group.to_string(),
                Origin::Relay => "(relay)".to_owned(),
            };
            [
                from,
                letters.topic.to_string(),
                letters.cause.to_string(),
                letters.count.to_string(),
                span(letters.oldest),
            ]
        };
        let rows: Vec<_> = depths.dead_letters.iter().map(row).collect();
        shown.push_str("\ndead letters\n");
        shown.push_str(&text::table(
            ["ORIGIN", "TOPIC", "CAUSE", "COUNT", "OLDEST"],
            &rows,
        ));
    }
    shown
}

fn of_services(services: &[Service]) -> String {
    let mut shown = String::new();
    for service in services {
        shown.push_str(&format!("\nservice {}\n", text::line(&service.name)));
        let rows: Vec<_> = service.nodes.iter().map(of_node).collect();
        let head = ["NODE", "STATE", "SILENT", "VERSION", "UP", "APPLIED", "TASKS"];
        shown.push_str(&text::table(head, &rows));
        for (node, problem) in service.nodes.iter().flat_map(problems) {
            shown.push_str(&format!("{}: {problem}\n", text::line(&node)));
        }
        shown.push('\n');
        shown.push_str(&groups::table(&service.groups()));
    }
    shown
}

fn of_node(node: &Node) -> [String; 7] {
    let report = node.report.as_ref();
    let applied = report.and_then(|report| report.control.as_ref()?.applied);
    let tasks = report.map_or(String::new(), |report| {
        let failing = report.tasks.iter().filter(|task| task.failing > 0).count();
        match (report.is_shortened, failing) {
            (true, _) => "too many to tell".to_owned(),
            (false, 0) => format!("{} well", report.tasks.len()),
            (false, failing) => format!("{failing} of {} failing", report.tasks.len()),
        }
    });
    [
        text::short(&node.entry.to_string(), NAME),
        state(node),
        span(node.entry.silent),
        report.map_or(String::new(), |report| text::short(&report.version, NAME)),
        report.map_or(String::new(), |report| {
            span(Duration::from_secs(report.uptime_seconds))
        }),
        applied.map_or("-".to_owned(), |applied| applied.to_string()),
        tasks,
    ]
}

/// What is wrong in a node, with its name.
fn problems(node: &Node) -> Vec<(String, String)> {
    let Some(report) = &node.report else {
        return Vec::new();
    };
    let tasks = report.tasks.iter().filter(|task| task.failing > 0).map(|task| {
        let error = task.last_error.as_deref().unwrap_or("no reason is known");
        let (name, error) = (text::short(&task.name, NAME), text::short(error, ERROR));
        format!("task {name} has failed {} times in a row: {error}", task.failing)
    });
    let relay = report.relay.iter().filter(|relay| relay.failing > 0);
    let relay = relay.map(|relay| {
        format!(
            "the relay waits for the transport, {} tries in a row failed",
            relay.failing
        )
    });
    let unknown = report.control.iter().flat_map(|control| &control.unknown);
    let unknown =
        unknown.map(|subject| format!("{} is steered, and not of this node", text::short(subject, NAME)));
    tasks
        .chain(relay)
        .chain(unknown)
        .map(|problem| (node.entry.to_string(), problem))
        .collect()
}
