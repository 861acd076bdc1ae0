//! `headless groups pause`, `resume` and `concurrency`.

use std::{
    collections::BTreeSet,
    fmt::Display,
    io::{self, Write},
    time::Duration,
};

use anyhow::Result;
use headless::{AnyStore, Changed, ControlSubject, ControlVersion, DesiredState, GroupName, TopicName};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::args::{ChangeArgs, ConcurrencyArgs, Most, PauseArgs};
use crate::{
    bad_input::BadInput,
    operator::{self, Answer, by, failed},
    survey::{self, Node, Service},
    text, urls,
};

/// How often the nodes are asked whether they have applied it.
const STEP: Duration = Duration::from_millis(200);

/// Pauses a group, or takes that back.
pub(super) async fn pause(args: &PauseArgs, paused: bool) -> Result<Answer> {
    let subject = match &args.topic {
        Some(topic) => ControlSubject::group_on(args.group.clone(), topic.clone()),
        None => ControlSubject::group(args.group.clone()),
    };
    let to = |state: DesiredState| Ok(state.with_paused(paused));
    change(&args.change, &args.group, args.topic.as_ref(), &subject, to).await
}

/// Limits a group, or takes that back.
pub(super) async fn concurrency(args: &ConcurrencyArgs) -> Result<Answer> {
    let subject = ControlSubject::group(args.group.clone());
    let most = match args.most {
        Most::Default => None,
        Most::Of(most) => Some(most),
    };
    let to = |state: DesiredState| state.with_concurrency(most);
    change(&args.change, &args.group, None, &subject, to).await
}

async fn change(
    args: &ChangeArgs,
    group: &GroupName,
    topic: Option<&TopicName>,
    subject: &ControlSubject,
    to: impl Fn(DesiredState) -> headless::Result<DesiredState>,
) -> Result<Answer> {
    let (name, by) = (&args.service.service, by(&args.by)?);
    // What is out of bounds is said before anything is connected to.
    to(DesiredState::nothing()).map_err(failed)?;
    let store = operator::store(&args.service.place).await?;
    let control = store.control().map_err(urls::wrong("--store"))?;
    if !args.force {
        check(&store, name, group, topic).await?;
    }
    let changed = control.change(name, subject, &by, to).await.map_err(failed)?;
    let wait = match args.wait {
        Some(wait) => Some(acknowledged(&store, name, changed.version, wait).await?),
        None => None,
    };
    tell(args, subject, &changed, wait.as_ref())
}

/// Refuses what nobody is known to have, and says what there is.
async fn check(store: &AnyStore, name: &str, group: &GroupName, topic: Option<&TopicName>) -> Result<()> {
    let nodes = survey::nodes(store).await?;
    let service = Service::read(store, name, &nodes).await?;
    let known = service.known();
    let refused = |what: String, known: String| {
        let mistake = format!("{what}; known are: {known}. --force takes it for what starts later");
        Err(BadInput::new(mistake).into())
    };
    if service.nodes.is_empty() && service.entries.is_empty() {
        let services: BTreeSet<&str> = nodes.iter().map(|node| &*node.entry.service).collect();
        return refused(
            format!("no node of a service {name:?} is known to the store"),
            list(services),
        );
    }
    let Some(topics) = known.get(group.as_str()) else {
        let what = format!(
            "no node of {name:?} is known to have a group {:?}",
            group.as_str()
        );
        return refused(what, list(known.keys()));
    };
    match topic {
        Some(topic) if !topics.contains(topic.as_str()) => {
            let what = format!(
                "group {:?} is not known to have a topic {:?}",
                group.as_str(),
                topic.as_str()
            );
            refused(what, list(topics))
        }
        _ => Ok(()),
    }
}

fn list(names: impl IntoIterator<Item = impl Display>) -> String {
    let names: Vec<_> = names
        .into_iter()
        .map(|name| text::line(&name.to_string()))
        .collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

/// Which live nodes have applied a change, and which have not.
struct Acknowledged {
    by: Vec<String>,
    not_by: Vec<String>,
}

impl Acknowledged {
    /// Whether every live node has; where none is, nobody has.
    fn is_whole(&self) -> bool {
        self.not_by.is_empty() && !self.by.is_empty()
    }
}

/// Looks until every live node has applied the change, or the time is over.
async fn acknowledged(
    store: &AnyStore,
    name: &str,
    version: ControlVersion,
    wait: Duration,
) -> Result<Acknowledged> {
    let looking = async {
        loop {
            let acknowledged = look(store, name, version).await?;
            if acknowledged.is_whole() {
                return Ok(acknowledged);
            }
            sleep(STEP).await;
        }
    };
    match timeout(wait, looking).await {
        Ok(whole) => whole,
        Err(_elapsed) => look(store, name, version).await,
    }
}

/// Which nodes have applied it so far.
async fn look(store: &AnyStore, name: &str, version: ControlVersion) -> Result<Acknowledged> {
    let nodes = survey::nodes(store).await?;
    let live = nodes
        .iter()
        .filter(|node| node.is_live() && &*node.entry.service == name);
    let (by, not_by): (Vec<&Node>, Vec<&Node>) = live.partition(|node| node.has_applied(version));
    let names = |nodes: Vec<&Node>| nodes.iter().map(|node| node.entry.to_string()).collect();
    Ok(Acknowledged {
        by: names(by),
        not_by: names(not_by),
    })
}

fn tell(
    args: &ChangeArgs,
    subject: &ControlSubject,
    changed: &Changed,
    wait: Option<&Acknowledged>,
) -> Result<Answer> {
    let mut out = io::stdout().lock();
    let now = changed.now;
    if args.service.place.json {
        let mut answer = json!({
            "service": args.service.service,
            "subject": subject.to_text(),
            "wanted": { "paused": now.paused, "concurrency": now.concurrency },
            "version": changed.version.get(),
            "changed": !changed.is_unchanged(),
        });
        if let Some(wait) = wait {
            answer["applied_by"] = json!(wait.by);
            answer["not_applied_by"] = json!(wait.not_by);
        }
        writeln!(out, "{answer}")?;
    } else {
        let is = if changed.is_unchanged() {
            "is already"
        } else {
            "is now"
        };
        let paused = if now.paused { "paused" } else { "not paused" };
        let concurrency = now
            .concurrency
            .map_or("default".to_owned(), |most| most.to_string());
        writeln!(out, "{subject} {is} wanted: {paused}, concurrency {concurrency}")?;
        if let Some(wait) = wait {
            for node in &wait.by {
                writeln!(out, "applied by {}", text::line(node))?;
            }
            for node in &wait.not_by {
                writeln!(
                    out,
                    "not yet applied by {}: it applies it when it hears of it",
                    text::line(node)
                )?;
            }
            if wait.by.is_empty() && wait.not_by.is_empty() {
                writeln!(out, "no node is registered, so nobody can say that it is applied")?;
            }
        }
    }
    Ok(match wait {
        Some(wait) if !wait.is_whole() => Answer::InPart,
        _ => Answer::Whole,
    })
}
