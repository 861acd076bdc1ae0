//! `headless demo`: publish through the outbox, handle with two members, take one of them away, and count what became of
//! it all. It uses the public facade alone.

mod books;
mod member;

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use futures::future::try_join_all;
use headless::Event;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{signal, sync::watch, task::AbortHandle, task::JoinSet, time};

use crate::cli::{DemoArgs, DemoMemberArgs, Role};
use crate::report::{Report, Told};
use crate::{bad_input::BadInput, child, input::Line, live::Live, orders, sandbox::Sandbox};

/// How long everything may take to settle once all is published.
const PATIENCE: Duration = Duration::from_mins(10);
/// How long what a process holds is held without a word from it.
const LEASE: Duration = Duration::from_secs(2);
/// How often the rows of members in other processes are counted.
const COUNT: Duration = Duration::from_millis(25);
/// How many keys are published at once, each in the order of its lines.
const LANES: usize = 8;

/// The body of a message, whatever it is.
#[derive(Serialize, Deserialize)]
struct Payload(Value);

impl Event for Payload {
    const TOPIC: &'static str = "demo.events";
}

/// Runs the demo until everything is settled, and leaves nothing of it.
pub(crate) async fn run(args: &DemoArgs) -> Result<Report> {
    let lines = orders::lines(&args.lines)?;
    rehearse(&lines).await?;
    let sandbox = Sandbox::create(&args.store, &args.transport).await?;
    let report = tokio::select! {
        biased;
        report = settle(&sandbox, lines, args.crash_after.unwrap_or(0)) => report,
        signal = signal::ctrl_c() => signal.map_err(Into::into).and_then(|()| bail!("interrupted")),
    };
    sandbox.remove().await?;
    report
}

async fn settle(sandbox: &Sandbox, lines: Vec<Line>, until_crash: u64) -> Result<Report> {
    sandbox
        .execute(include_str!("../queries/demo/create.sql"))
        .await?;
    let (count, (publishing, published)) = (lines.len(), watch::channel(()));
    let (live, mut crashes) = Live::new(count, until_crash);
    let mut members = JoinSet::new();
    let mut running = Vec::new();
    for number in 0..2 {
        running.push(start(number, sandbox, &live, &published, &mut members).await?);
    }
    members.spawn(produce(sandbox.again().await?, lines, Some(publishing)));
    let (mut told, mut ticks) = (Vec::new(), time::interval(COUNT));
    while !members.is_empty() {
        tokio::select! {
            biased;
            Some(number) = crashes.recv() => {
                live.gone();
                running[number].abort();
                running[number] = start(number, sandbox, &live, &published, &mut members).await?;
            }
            Some(ended) = members.join_next() => match ended {
                Err(error) if error.is_cancelled() => {}
                ended => told.push(ended??),
            },
            _ = ticks.tick(), if sandbox.is_shared() => live.look(books::count(&sandbox.store).await?),
        }
    }
    let [published, handled] = books::rows(&sandbox.store).await?;
    Ok(Report::of(count, &published, &handled, &told, live.end())?)
}

/// Starts a member: in this process where its servers are in memory, else in one of its own.
async fn start(
    number: usize,
    sandbox: &Sandbox,
    live: &Arc<Live>,
    published: &watch::Receiver<()>,
    members: &mut JoinSet<Result<Told>>,
) -> Result<AbortHandle> {
    let published = published.clone();
    if sandbox.is_shared() {
        let urls = sandbox.urls.clone();
        let member = async move { child::run(&["demo-member", "--role=member"], &urls, published).await };
        return Ok(members.spawn(member));
    }
    let (sandbox, live) = (sandbox.again().await?, live.clone());
    let serving = member::serve(Role::Member, sandbox, move || live.handled(number), published);
    Ok(members.spawn(serving))
}

/// `headless demo-member`: one process of a demo.
pub(crate) async fn member(args: &DemoMemberArgs) -> Result<Told> {
    let sandbox = Sandbox::enter([args.store.clone(), args.transport.clone()]).await?;
    if args.role != Role::Producer {
        return member::serve(args.role, sandbox, || false, child::until_told()).await;
    }
    produce(sandbox, orders::lines(&args.lines)?, None).await
}

/// Publishes every line where nobody consumes, so that every mistake shows before anything is published.
async fn rehearse(lines: &[Line]) -> Result<()> {
    let sandbox = Sandbox::create("memory:", "memory:").await?;
    let runtime = member::builder(&sandbox).relays(false).start().await?;
    let mut mistakes = Vec::new();
    for line in lines {
        if let Err(error) = books::publish(&sandbox.store, &runtime, line).await {
            mistakes.push(format!("line {}: {error}", line.number));
        }
    }
    runtime.shutdown(PATIENCE).await?;
    Ok(BadInput::unless_empty(mistakes)?)
}

/// Publishes every line, several keys at once; then there is no sender of `until` any more.
async fn produce(sandbox: Sandbox, lines: Vec<Line>, until: Option<watch::Sender<()>>) -> Result<Told> {
    let runtime = member::builder(&sandbox).relays(false).start().await?;
    let lane_of = |line: &Line| {
        line.key
            .iter()
            .flat_map(|key| key.bytes())
            .map(usize::from)
            .sum::<usize>()
    };
    let lane = async |lane| {
        for line in lines.iter().filter(|line| lane_of(line) % LANES == lane) {
            books::publish(&sandbox.store, &runtime, line).await?;
        }
        anyhow::Ok(())
    };
    try_join_all((0..LANES).map(lane)).await?;
    runtime.shutdown(PATIENCE).await?;
    drop(until);
    Ok(Told::default())
}
