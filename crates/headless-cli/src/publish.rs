//! `headless publish`: one message, or each line of a file.

use std::{
    io::{self, Read, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use headless::{
    Builder, Headless, MessageBuilder, Ordered, Providers, PublishOutcome, Published, Publisher, Raw,
    RawBytes,
};
use serde_json::{Value, json};

use crate::{
    bad_input::BadInput,
    cli::PublishArgs,
    input::{self, Fields, Line},
    operator::{Answer, complain},
    progress,
    urls::{self, is_bad_input},
};

/// Publishes, and prints what became of each message.
pub(crate) async fn run(args: &PublishArgs) -> Result<Answer> {
    let runtime = builder(args).await?.start().await.map_err(bad_input)?;
    let outcome = match &args.lines {
        Some(path) => publish_lines(args, path, runtime.publisher()).await,
        None => publish_one(args, runtime.publisher()).await,
    };
    let ended = runtime.shutdown(Duration::from_secs(30)).await;
    let answer = outcome?;
    ended?;
    Ok(answer)
}

async fn builder(args: &PublishArgs) -> Result<Builder> {
    let (store, transport) = urls::connect(
        &Providers::builtin(),
        args.store.as_deref().map(urls::unmigrated).as_deref(),
        args.transport.as_deref().map(urls::unmigrated).as_deref(),
    )
    .await?;
    // It is over before anybody could look at it as a node, and what the store's services keep is theirs to say.
    let mut builder = Headless::builder("headless-publish")
        .registers(false)
        .purges(false);
    if args.raw {
        builder = builder.codec(Raw);
    }
    if let Some(store) = store {
        builder = builder.any_store(&store);
    }
    if let Some(transport) = transport {
        builder = builder.any_transport(&transport);
    }
    let order = args.partitions.map_or(Ordered::no(), Ordered::partitions);
    Ok(builder.topic_named(&args.topic, order))
}

async fn publish_one(args: &PublishArgs, publisher: &Publisher) -> Result<Answer> {
    let data = match args.data.as_deref() {
        Some("-") | None => {
            let mut data = Vec::new();
            io::stdin().read_to_end(&mut data).context("standard input")?;
            data
        }
        Some(data) => data.as_bytes().to_vec(),
    };
    let line = Line {
        id: args.idempotency_key.clone(),
        key: args.key.clone(),
        ..Line::default()
    };
    let message = if args.raw {
        publisher.message(&args.topic, &RawBytes::new(data.into()))
    } else {
        let payload: Value = serde_json::from_slice(&data)
            .map_err(|error| BadInput::new(format!("DATA is no JSON ({error}): mend it, or use --raw")))?;
        publisher.message(&args.topic, &payload)
    };
    let published = described(args, &line, message).send().await.map_err(bad_input)?;
    print(args, None, &published)?;
    Ok(answer(u64::from(is_unrouted(&published)), args))
}

/// Publishes each line; one that is wrong does not keep the others back.
async fn publish_lines(args: &PublishArgs, path: &Path, publisher: &Publisher) -> Result<Answer> {
    let (reader, bar) = (input::open(path)?, progress::line(None, "published"));
    let (mut mistakes, mut unrouted) = (Vec::new(), 0);
    for line in input::lines(reader, Fields::Known) {
        let line = match line.with_context(|| path.display().to_string())? {
            Ok(line) => line,
            Err(mistake) => {
                mistakes.push(mistake);
                continue;
            }
        };
        match described(args, &line, publisher.message(&args.topic, &line.payload))
            .send()
            .await
        {
            Ok(published) => {
                bar.inc(1);
                unrouted += u64::from(is_unrouted(&published));
                bar.suspend(|| print(args, Some(line.number), &published))?;
            }
            Err(error) if is_bad_input(&error) => mistakes.push(format!("line {}: {error}", line.number)),
            Err(error) => {
                let published = bar.position();
                return Err(error).context(format!("line {}, after {published} published ones", line.number));
            }
        }
        if !mistakes.is_empty() {
            bar.set_message(format!("({} lines are wrong)", mistakes.len()));
        }
    }
    bar.finish_and_clear();
    BadInput::unless_empty(mistakes)?;
    Ok(answer(unrouted, args))
}

fn is_unrouted(published: &Published) -> bool {
    published.outcome == PublishOutcome::Unrouted
}

/// Says so where nobody takes what was published: it is gone.
fn answer(unrouted: u64, args: &PublishArgs) -> Answer {
    if unrouted == 0 {
        return Answer::Whole;
    }
    let topic = &args.topic;
    complain(&format!(
        "{unrouted} published, and no group takes {topic}: nobody will see it"
    ));
    Answer::InPart
}

fn described<To>(args: &PublishArgs, line: &Line, message: MessageBuilder<To>) -> MessageBuilder<To> {
    let headers = args.headers.iter();
    line.describe(headers.fold(message, |message, (name, value)| message.header(name, value)))
}

fn print(args: &PublishArgs, line: Option<u64>, published: &Published) -> Result<()> {
    let mut out = io::stdout().lock();
    if !args.json {
        return Ok(writeln!(out, "{}", published.id)?);
    }
    let mut object = json!({ "id": published.id.to_string(), "outcome": name(published.outcome) });
    if let Some(line) = line {
        object["line"] = json!(line);
    }
    Ok(writeln!(out, "{object}")?)
}

const fn name(outcome: PublishOutcome) -> &'static str {
    match outcome {
        PublishOutcome::Stored => "stored",
        PublishOutcome::Duplicate => "duplicate",
        PublishOutcome::Accepted => "accepted",
        PublishOutcome::Unrouted => "unrouted",
        _ => "published",
    }
}

fn bad_input(error: headless::Error) -> anyhow::Error {
    if is_bad_input(&error) {
        BadInput::new(error).into()
    } else {
        error.into()
    }
}
