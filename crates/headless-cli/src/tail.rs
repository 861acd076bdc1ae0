//! `headless tail`: what goes over a topic, as it goes by.

use std::{
    io::{self, Write},
    pin::pin,
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, value_parser};
use headless::{Providers, Seen, StartFrom, TopicName};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{message, operator::complain, text, urls};

/// How much of a payload is shown on a line, in characters.
const SHOWN: usize = 200;

/// The arguments of `tail`.
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// The transport
    #[arg(long, value_name = "URL")]
    pub(crate) transport: String,
    /// The topic; it has to be there already
    #[arg(long, value_parser = |text: &str| TopicName::parse_stored(text))]
    pub(crate) topic: TopicName,
    /// Begin with the oldest message that the transport still has, where it can
    #[arg(long)]
    pub(crate) from_oldest: bool,
    /// End after N messages; without it, with SIGINT, SIGTERM or SIGHUP
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    pub(crate) most: Option<u64>,
    /// Print a JSON object for each message
    #[arg(long)]
    pub(crate) json: bool,
}

/// Shows messages until it is told to end. It takes none from any group.
pub(crate) async fn run(args: &TailArgs) -> Result<()> {
    let url = urls::unmigrated(&args.transport);
    let (_, transport) = urls::connect(&Providers::builtin(), None, Some(&url)).await?;
    let transport = transport.context("--transport names one")?;
    // Until here there is nothing to put away.
    let mut ends = Ends::new()?;
    let start = if args.from_oldest {
        StartFrom::Oldest
    } else {
        StartFrom::Now
    };
    let mut opening = pin!(transport.tail(args.topic.clone(), start));
    // What was begun is brought to its end, so that no group is left behind.
    let (opened, is_over) = tokio::select! {
        biased;
        opened = &mut opening => (opened, false),
        () = ends.asked() => tokio::select! {
            biased;
            opened = &mut opening => (opened, true),
            () = ends.asked() => bail!("ended at once: a group tail-… may be left behind"),
        },
    };
    let mut tail = opened.map_err(urls::wrong("--topic"))?;
    let group = tail.group().clone();
    let show = async {
        if is_over {
            return Ok(());
        }
        complain(&format!("watching {} with the group {group}", args.topic));
        let mut left = args.most;
        while left != Some(0) {
            let seen = tail.next().await?;
            print(args, &seen)?;
            left = left.map(|left| left - 1);
        }
        anyhow::Ok(())
    };
    let told = tokio::select! {
        biased;
        () = ends.asked() => Ok(()),
        shown = show => shown,
    };
    // Also where showing has failed, as into a pipe that nobody reads any more.
    let closed = tokio::select! {
        biased;
        closed = tail.close() => closed.map_err(urls::wrong("--transport")),
        () = ends.asked() => Err(anyhow!("ended at once: the group {group} may be left behind")),
    };
    told.and(closed)
}

/// The signals that end it; the last is that of a terminal that is closed.
struct Ends([Signal; 3]);

impl Ends {
    fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn asked(&mut self) {
        let [interrupted, terminated, hung_up] = &mut self.0;
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
            _ = hung_up.recv() => {}
        }
    }
}

fn print(args: &TailArgs, seen: &Seen) -> Result<()> {
    let mut out = io::stdout().lock();
    let malformed = seen.malformed.as_ref().map(ToString::to_string);
    if args.json {
        let mut object = message::json(&seen.message);
        object["partition"] = seen
            .partition
            .map_or(Value::Null, |partition| json!(partition.get()));
        object["again"] = json!(seen.again);
        object["malformed"] = json!(malformed);
        writeln!(out, "{object}")?;
    } else {
        let message = &seen.message;
        let key = message.key.as_ref().map_or("-".to_owned(), ToString::to_string);
        let payload = String::from_utf8_lossy(&message.payload);
        let mark = if seen.again { " (again)" } else { "" };
        writeln!(
            out,
            "{} {} {}{mark} {}",
            message.occurred_at.format("%Y-%m-%dT%H:%M:%S%.3fZ"),
            message.id,
            text::line(&key),
            text::short(&payload, SHOWN)
        )?;
        if let Some(malformed) = malformed {
            writeln!(out, "  malformed: {}", text::line(&malformed))?;
        }
    }
    Ok(out.flush()?)
}
