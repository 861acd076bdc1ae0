//! `headless topics`: what an operator changes of topics.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{ArgGroup, Args, Subcommand};
use headless::{AnyTransport, Error, ErrorKind, Ordered, Providers, TopicName, TopicOrder};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{groups::time, operator::Answer, urls};

/// How often it is tried while it is waited for.
const STEP: Duration = Duration::from_millis(200);

/// After how many tries it is told, at most, what stands in the way.
const TELL: u32 = 5;

/// The arguments of `topics`.
#[derive(Debug, Args)]
pub(crate) struct TopicsArgs {
    #[command(subcommand)]
    command: TopicsCommand,
}

/// What to do with topics.
#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// Give a topic another count of partitions, or another order, once nothing of it waits or is unsettled in any group
    Repartition(RepartitionArgs),
}

/// The arguments of `topics repartition`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("order").required(true).args(["partitions", "unordered"]))]
struct RepartitionArgs {
    /// The topic
    #[arg(value_parser = |text: &str| TopicName::parse_stored(text))]
    topic: TopicName,
    /// It keeps the order of keys over this many partitions, 1 to 1024
    #[arg(long, value_name = "N")]
    partitions: Option<u16>,
    /// It keeps no order
    #[arg(long)]
    unordered: bool,
    /// The transport
    #[arg(long, value_name = "URL")]
    transport: String,
    /// Wait for so long, as in 5min, until nothing of the topic waits or is unsettled, and say meanwhile what does; end
    /// with 3 where something still does
    #[arg(long, value_name = "TIME", value_parser = time)]
    wait: Option<Duration>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Does what the arguments say.
pub(crate) async fn run(args: &TopicsArgs) -> Result<Answer> {
    match &args.command {
        TopicsCommand::Repartition(args) => repartition(args).await,
    }
}

async fn repartition(args: &RepartitionArgs) -> Result<Answer> {
    let order = args.partitions.map_or(Ordered::no(), Ordered::partitions);
    let to = order.to_order().map_err(urls::wrong("--partitions"))?;
    let url = urls::unmigrated(&args.transport);
    let (_, transport) = urls::connect(&Providers::builtin(), None, Some(&url)).await?;
    let transport = transport.context("--transport names one")?;
    let topic = &args.topic;
    match drained(args, &transport, order).await {
        Ok(before) if before == to => {
            tell(
                args,
                "unchanged",
                Some(before),
                &format!("{topic} is {to} already"),
            )?;
            Ok(Answer::Whole)
        }
        Ok(before) => {
            let text = format!("{topic} was {before}, and is {to}");
            tell(args, "changed", Some(before), &text)?;
            Ok(Answer::Whole)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            tell(args, "not_found", None, &format!("there is no topic {topic}"))?;
            Ok(Answer::InPart)
        }
        Err(error) if error.kind() == ErrorKind::Conflict => {
            tell(args, "held", None, error.message())?;
            Ok(Answer::InPart)
        }
        Err(error) => Err(urls::wrong(urls::TRANSPORT)(error)),
    }
}

/// Tries until nothing stands in the way, for as long as is waited.
async fn drained(
    args: &RepartitionArgs,
    transport: &AnyTransport,
    order: Ordered,
) -> Result<TopicOrder, Error> {
    let Some(wait) = args.wait else {
        return transport.repartition(&args.topic, order).await;
    };
    let mut over = std::pin::pin!(sleep(wait));
    let mut told = String::new();
    for tries in 0_u32.. {
        let error = match transport.repartition(&args.topic, order).await {
            Err(error) if is_passing(&error) => error,
            answer => return answer,
        };
        if tries.is_multiple_of(TELL) && told != error.message() {
            error.message().clone_into(&mut told);
            // Where nobody reads it any more, the change is wanted all the same.
            let _unread = writeln!(io::stderr().lock(), "waiting: {told}");
        }
        tokio::select! {
            biased;
            () = &mut over => break,
            () = sleep(STEP) => {}
        }
    }
    transport.repartition(&args.topic, order).await
}

/// Whether it is messages, or somebody's lock, that stand in the way for now.
fn is_passing(error: &Error) -> bool {
    error.is_retryable() && matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Timeout)
}

fn tell(args: &RepartitionArgs, answer: &str, before: Option<TopicOrder>, text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        let partitions_of = |order: TopicOrder| match order.partitions() {
            Some(partitions) => json!(partitions.get()),
            None => Value::Null,
        };
        let object = json!({
            "topic": args.topic.as_str(),
            "answer": answer,
            "before": before.map_or(Value::Null, partitions_of),
            "partitions": args.partitions,
            "text": text,
        });
        writeln!(out, "{object}")
    } else {
        writeln!(out, "{text}")
    }
}
