//! `headless dead show`.

use std::io::{self, Write};

use anyhow::Result;
use headless::{DeadLetter, DeadLetterChange};
use serde_json::json;

use super::{args::ShowArgs, deed, json, open, origin, unknown};
use crate::{
    operator::{Answer, failed},
    text,
};

/// The most changes that are shown.
const CHANGES: usize = 100;

/// Shows one.
pub(super) async fn run(args: &ShowArgs) -> Result<Answer> {
    let dead = open(&args.place).await?;
    let letter = dead.get(args.id).await.map_err(failed)?;
    let mut out = io::stdout().lock();
    let Some(letter) = letter else {
        match args.place.json {
            true => writeln!(out, "{}", json!({ "error": "not_found" }))?,
            false => writeln!(io::stderr().lock(), "{}", unknown(args.id))?,
        }
        return Ok(Answer::InPart);
    };
    if args.payload {
        out.write_all(&letter.message.payload)?;
        out.flush()?;
        return Ok(Answer::Whole);
    }
    let history = dead.history(args.id, None, CHANGES).await.map_err(failed)?.items;
    if args.place.json {
        let mut object = json::letter(&letter);
        object["history"] = history.iter().map(json::change).collect();
        writeln!(out, "{object}")?;
    } else {
        write_fields(&mut out, &letter)?;
        write_history(&mut out, &letter, &history)?;
        let payload = &letter.message.payload;
        writeln!(
            out,
            "\npayload, {} bytes:\n{}",
            payload.len(),
            text::payload(payload)
        )?;
    }
    Ok(Answer::Whole)
}

fn write_fields(out: &mut impl Write, letter: &DeadLetter) -> io::Result<()> {
    let message = &letter.message;
    let optional = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
    let closed = |closed: &Option<(String, chrono::DateTime<chrono::Utc>)>| {
        optional(closed.as_ref().map(|(by, at)| format!("by {by} at {at}")))
    };
    let fields = [
        ("dead letter", letter.id.to_string()),
        ("died at", letter.buried_at.to_string()),
        ("died in", origin(&letter.origin)),
        ("rounds", letter.rounds.to_string()),
        ("redrives before", letter.redrives.to_string()),
        (
            "redriven from",
            optional(letter.previous.map(|id| id.to_string())),
        ),
        ("edits", letter.edits.to_string()),
        ("redriven", closed(&letter.redriven)),
        ("discarded", closed(&letter.discarded)),
        ("message", message.id.to_string()),
        ("topic", message.topic.to_string()),
        (
            "type",
            optional(message.message_type.as_ref().map(ToString::to_string)),
        ),
        ("key", optional(message.key.as_ref().map(ToString::to_string))),
        (
            "idempotency key",
            optional(message.idempotency_key.as_ref().map(ToString::to_string)),
        ),
        (
            "correlation",
            optional(message.correlation_id.as_ref().map(ToString::to_string)),
        ),
        (
            "caused by",
            optional(message.causation_id.map(|id| id.to_string())),
        ),
        (
            "tenant",
            optional(message.tenant.as_ref().map(ToString::to_string)),
        ),
        ("occurred at", message.occurred_at.to_string()),
        (
            "content type",
            optional(message.content_type.as_ref().map(ToString::to_string)),
        ),
    ];
    for (name, value) in fields {
        writeln!(out, "{name:<16} {}", text::line(&value))?;
    }
    for (name, value) in message.headers.iter() {
        writeln!(
            out,
            "{:<16} {}: {}",
            "header",
            text::line(name),
            text::line(value)
        )?;
    }
    Ok(())
}

fn write_history(out: &mut impl Write, letter: &DeadLetter, history: &[DeadLetterChange]) -> io::Result<()> {
    writeln!(out, "\nfailures, the last one the cause:")?;
    for failure in &letter.failures {
        let (node, message) = (text::line(&failure.node), text::line(&failure.message));
        writeln!(out, "{} {} on {node}: {message}", failure.at, failure.cause)?;
    }
    if !history.is_empty() {
        writeln!(
            out,
            "\nwhat was done to it (`--json` has the payloads before edits):"
        )?;
    }
    for change in history {
        writeln!(
            out,
            "{} {} by {}",
            change.at,
            deed(&change.what),
            text::line(&change.by)
        )?;
    }
    Ok(())
}
