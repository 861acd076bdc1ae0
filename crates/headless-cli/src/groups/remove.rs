//! `headless groups remove`.

use std::io::{self, Write};

use anyhow::{Context as _, Result};
use headless::{AnyStore, ErrorKind, Providers};
use serde_json::json;

use super::args::RemoveArgs;
use crate::{operator::Answer, survey, urls};

/// Ends a group. One for which messages wait, or that a live node has, is left as it is, unless it is forced.
pub(super) async fn run(args: &RemoveArgs) -> Result<Answer> {
    let (store, transport) = urls::connect(
        &Providers::builtin(),
        args.store.as_deref().map(urls::unmigrated).as_deref(),
        Some(&urls::unmigrated(&args.transport)),
    )
    .await?;
    let transport = transport.context("--transport names one")?;
    let group = &args.group;
    let waiting = match transport.lag(group).await {
        Ok(waiting) => waiting,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            tell(args, "not_found", 0, &format!("there is no group {group}"))?;
            return Ok(Answer::InPart);
        }
        Err(error) => return Err(urls::wrong("--transport")(error)),
    };
    if waiting > 0 && !args.force {
        let why = format!(
            "{waiting} messages wait for {group}, or are with its members: with --force they are gone"
        );
        tell(args, "waiting", waiting, &why)?;
        return Ok(Answer::InPart);
    }
    if !args.force
        && let Some((answer, why)) = objection(args, store.as_ref()).await?
    {
        tell(args, answer, waiting, &why)?;
        return Ok(Answer::InPart);
    }
    transport
        .remove_group(group)
        .await
        .map_err(urls::wrong("--transport"))?;
    tell(
        args,
        "removed",
        waiting,
        &format!("{group} is removed, with {waiting} messages"),
    )?;
    Ok(Answer::Whole)
}

/// What speaks against removing it, as far as its store knows.
async fn objection(args: &RemoveArgs, store: Option<&AnyStore>) -> Result<Option<(&'static str, String)>> {
    let group = &args.group;
    let unchecked = |why: &str| {
        Some((
            "unchecked",
            format!("whether a service has {group} is not known: {why}"),
        ))
    };
    let Some(store) = store else {
        return Ok(unchecked("name its store with --store, or use --force"));
    };
    let nodes = survey::nodes(store).await?;
    let live: Vec<_> = nodes
        .iter()
        .filter(|node| node.is_live())
        .map(|node| node.has_group(group.as_str()))
        .collect();
    let having = live.iter().filter(|has| **has == Some(true)).count();
    let silent = live.iter().filter(|has| has.is_none()).count();
    Ok(if having > 0 {
        let why = format!(
            "{having} live nodes have {group}: without it they would miss what is sent, until they start again"
        );
        Some(("in_use", why))
    } else if silent > 0 {
        unchecked(&format!(
            "{silent} live nodes have not said which groups they have; try again, or use --force"
        ))
    } else if nodes.is_empty() {
        unchecked("no node was ever registered in this store; --force removes it all the same")
    } else {
        None
    })
}

fn tell(args: &RemoveArgs, answer: &str, waiting: u64, text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        let object = json!({ "group": args.group.as_str(), "answer": answer, "messages": waiting });
        writeln!(out, "{object}")
    } else {
        writeln!(out, "{text}")
    }
}
