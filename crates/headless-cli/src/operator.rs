//! What every command of an operator takes and answers.

use std::{
    env,
    io::{self, Write},
};

use anyhow::{Context as _, Result};
use clap::Args;
use headless::{AnyStore, Providers};

use crate::{bad_input::BadInput, urls};

/// Where it is, and how to speak of it.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// The store
    #[arg(long, value_name = "URL")]
    pub(crate) store: String,
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Who asks.
#[derive(Debug, Args)]
pub(crate) struct ByArgs {
    /// Who asks, kept with the record; 200 bytes at most. Without it, the variable USER says
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
}

/// Whether everything that was asked for is there, and was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is.
    Whole,
    /// Something of it is not; what was printed says what.
    InPart,
}

/// The store of a command that runs nothing itself.
pub(crate) async fn store(place: &PlaceArgs) -> Result<AnyStore> {
    let url = urls::unmigrated(&place.store);
    let (store, _) = urls::connect(&Providers::builtin(), Some(&url), None).await?;
    store.context("--store names one")
}

/// Who asks.
pub(crate) fn by(args: &ByArgs) -> Result<String> {
    let by = args.by.clone().or_else(|| env::var("USER").ok());
    match by.filter(|by| !by.is_empty()) {
        Some(by) => Ok(by),
        None => Err(BadInput::new("--by: say who asks, since the variable USER does not").into()),
    }
}

/// An error of the store, as the user's mistake where it is one.
pub(crate) fn failed(error: headless::Error) -> anyhow::Error {
    if urls::is_bad_input(&error) {
        BadInput::new(error).into()
    } else {
        error.into()
    }
}

/// Tells people on standard error what the answer itself does not say.
pub(crate) fn complain(what: &str) {
    let _gone = writeln!(io::stderr().lock(), "{what}");
}
