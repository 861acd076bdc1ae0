//! `headless dead edit`, `redrive` and `discard`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use anyhow::{Context as _, Result};
use headless::{
    DeadId, DeadLetter, DeadLetters, DiscardMatching, Edit, Edited, Matched, Redrive, RedriveMatching,
    Redriven,
};
use serde_json::{Value, json};

use super::{
    args::{DiscardArgs, EditArgs, RedriveArgs, WhichArgs},
    filter, list, open,
};
use crate::{
    bad_input::BadInput,
    operator::{Answer, by, complain, failed},
    progress,
};

/// The largest payload that any store takes, in bytes.
const LARGEST: u64 = 256 * 1024 * 1024;
/// The most kinds that a dry run lists.
const KINDS: usize = 100;

/// Gives one another payload.
pub(super) async fn edit(args: &EditArgs) -> Result<Answer> {
    let by = by(&args.by)?;
    let dead = open(&args.place).await?;
    let payload = match (&args.data, &args.file) {
        (Some(data), _) if data == "-" => read(Path::new("-"))?,
        (Some(data), _) => data.clone().into_bytes(),
        (None, Some(file)) => read(file)?,
        (None, None) => return Err(BadInput::new("give the payload: as DATA, or with --file").into()),
    };
    let Some(letter) = dead.get(args.id).await.map_err(failed)? else {
        return tell(args.place.json, &[(args.id, "not_found")]);
    };
    if !args.raw && is_json(&letter) && serde_json::from_slice::<Value>(&payload).is_err() {
        let mistake = "the payload is no JSON, and the one before was: mend it, or use --raw";
        return Err(BadInput::new(mistake).into());
    }
    let edit = Edit::new(args.id, payload.into(), by).with_seen(args.seen.unwrap_or(letter.edits));
    let answer = dead.edit(&edit).await.map_err(failed)?;
    let name = match answer {
        Edited::Now => "edited",
        Edited::NotFound => "not_found",
        Edited::Closed => "closed",
        Edited::Changed => "edited_since",
        Edited::CapReached => "cap_reached",
    };
    tell(args.place.json, &[(args.id, name)])
}

/// Sends some on their way again.
pub(super) async fn redrive(args: &RedriveArgs) -> Result<Answer> {
    let which = &args.which;
    let dead = open(&args.place).await?;
    if !which.ids.is_empty() {
        let mut request =
            Redrive::new(which.ids.clone(), by(&which.by)?).with_max_redrives(args.max_redrives);
        if args.force {
            request = request.with_max_age(None);
        }
        let answers = dead.redrive(&request).await.map_err(failed)?;
        let told: Vec<_> = which
            .ids
            .iter()
            .copied()
            .zip(answers.into_iter().map(redriven))
            .collect();
        return tell(args.place.json, &told);
    }
    let filter = filter(&dead, &which.filter).await?;
    if which.dry_run {
        return list::tally(&dead, &filter, KINDS, args.place.json).await;
    }
    let mut request = RedriveMatching::new(filter, by(&which.by)?)
        .with_most(usize::try_from(which.most)?)
        .with_per_second(args.rate)
        .with_max_redrives(args.max_redrives);
    if args.force {
        request = request.with_max_age(None);
    }
    let bar = progress::line(None, "answered");
    let mut so_far = BTreeMap::new();
    let ended = dead
        .redrive_matching_with(&request, |answers| {
            bar.set_position(answers.values().sum());
            so_far.clone_from(answers);
        })
        .await;
    bar.finish_and_clear();
    let matched = ended
        .map_err(failed)
        .with_context(|| format!("until then: {}", json!(so_far)))?;
    total(args.place.json, "redriven", &matched)
}

/// Closes some.
pub(super) async fn discard(args: &DiscardArgs) -> Result<Answer> {
    let which = &args.which;
    let dead = open(&args.place).await?;
    if !which.ids.is_empty() {
        return discard_each(&dead, which, &by(&which.by)?, args.place.json).await;
    }
    let filter = filter(&dead, &which.filter).await?;
    if which.dry_run {
        return list::tally(&dead, &filter, KINDS, args.place.json).await;
    }
    let request = DiscardMatching::new(filter, by(&which.by)?).with_most(usize::try_from(which.most)?);
    let mut so_far = 0;
    let ended = dead
        .discard_matching_with(&request, |closed| so_far = closed)
        .await;
    let matched = ended
        .map_err(failed)
        .with_context(|| format!("until then, {so_far} were discarded"))?;
    total(args.place.json, "discarded", &matched)
}

/// Closes each by itself, since the answer for several does not say which were open.
async fn discard_each(dead: &DeadLetters, which: &WhichArgs, by: &str, as_json: bool) -> Result<Answer> {
    let mut told = Vec::with_capacity(which.ids.len());
    for id in &which.ids {
        match discard_one(dead, *id, by).await {
            Ok(answer) => told.push((*id, answer)),
            Err(error) => {
                // What was done is told in any case.
                tell(as_json, &told)?;
                return Err(failed(error)).with_context(|| id.to_string());
            }
        }
    }
    tell(as_json, &told)
}

async fn discard_one(dead: &DeadLetters, id: DeadId, by: &str) -> headless::Result<&'static str> {
    Ok(match dead.discard(&[id], by).await? {
        0 if dead.get(id).await?.is_none() => "not_found",
        0 => "closed",
        _ => "discarded",
    })
}

const fn redriven(answer: Redriven) -> &'static str {
    match answer {
        Redriven::Now => "redriven",
        Redriven::NotFound => "not_found",
        Redriven::Closed => "closed",
        Redriven::Superseded => "superseded",
        Redriven::TooOld => "too_old",
        Redriven::CapReached => "cap_reached",
    }
}

/// What an answer means, and what may be done.
fn meaning(answer: &str) -> &'static str {
    match answer {
        "not_found" => "there is no such dead letter",
        "closed" => "it was redriven or discarded before",
        "superseded" => "another message of its idempotency key was processed in the meantime",
        "too_old" => "it died too long ago for the inbox to know what was done since: --force",
        "cap_reached" => "it was changed as often as is allowed: for a redrive, --max-redrives",
        "edited_since" => "somebody has edited it since it was read: look at it again",
        "conflict" => "it was edited, and its message was published again and waits in the outbox",
        _ => "done",
    }
}

fn is_done(answer: &str) -> bool {
    ["edited", "redriven", "discarded"].contains(&answer)
}

/// Prints what became of each.
fn tell(as_json: bool, told: &[(DeadId, &'static str)]) -> Result<Answer> {
    let mut out = io::stdout().lock();
    if as_json {
        let answers = told
            .iter()
            .map(|(id, answer)| json!({ "id": id.to_string(), "answer": answer }));
        writeln!(out, "{}", json!({ "answers": answers.collect::<Vec<_>>() }))?;
    } else {
        for (id, answer) in told {
            match is_done(answer) {
                true => writeln!(out, "{id} {answer}")?,
                false => writeln!(out, "{id} {answer}: {}", meaning(answer))?,
            }
        }
    }
    Ok(whole(told.iter().all(|(_, answer)| is_done(answer))))
}

/// Prints how many were answered how.
fn total(as_json: bool, done: &'static str, matched: &Matched) -> Result<Answer> {
    let answers = &matched.answers;
    let mut out = io::stdout().lock();
    if as_json {
        let mut object = json!(answers);
        object["more"] = json!(matched.more);
        writeln!(out, "{object}")?;
    } else {
        writeln!(out, "{done} {}", answers.get(done).unwrap_or(&0))?;
        for (answer, count) in answers.iter().filter(|(answer, _)| !is_done(answer)) {
            writeln!(out, "{answer} {count}: {}", meaning(answer))?;
        }
    }
    if matched.more {
        complain("more match than --most: ask again, or for more");
    }
    Ok(whole(
        !matched.more && answers.keys().all(|answer| is_done(answer)),
    ))
}

const fn whole(is_whole: bool) -> Answer {
    if is_whole { Answer::Whole } else { Answer::InPart }
}

fn is_json(letter: &DeadLetter) -> bool {
    let content_type = letter.message.content_type.as_ref();
    content_type.is_some_and(|content_type| content_type.as_str().starts_with("application/json"))
        || serde_json::from_slice::<Value>(&letter.message.payload).is_ok()
}

/// Reads a payload; one that no store takes is refused before it fills the memory.
fn read(file: &Path) -> Result<Vec<u8>> {
    let place = || format!("--file {}", file.display());
    let reader: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(file).map_err(|error| BadInput::new(format!("{}: {error}", place())))?),
    };
    let mut bytes = Vec::new();
    reader
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .with_context(place)?;
    if u64::try_from(bytes.len())? > LARGEST {
        return Err(BadInput::new(format!("{}: it has over {LARGEST} bytes", place())).into());
    }
    Ok(bytes)
}
