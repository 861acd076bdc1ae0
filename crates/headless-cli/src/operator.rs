//! What every command of an operator takes and answers.

use std::env;

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
    let url = unmigrated(&place.store);
    let (store, _) = urls::connect(&Providers::builtin(), Some(&url), None).await?;
    store.context("--store names one")
}

/// The URL, so that connecting changes no schema unless it says so itself: who looks at a store does not update the
/// services that use it.
pub(crate) fn unmigrated(url: &str) -> String {
    let scheme = url.split(':').next().unwrap_or_default().to_ascii_lowercase();
    if !["postgres", "postgresql"].contains(&&*scheme) || url.contains("migrate=") {
        return url.to_owned();
    }
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}migrate=check")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_migrate_nothing_when_the_url_does_not_ask_for_it() {
        for (url, connected) in [
            ("postgres://h/db", "postgres://h/db?migrate=check"),
            (
                "PostgreSQL://h/db?schema=a",
                "PostgreSQL://h/db?schema=a&migrate=check",
            ),
            ("postgres://h/db?migrate=auto", "postgres://h/db?migrate=auto"),
            ("memory:", "memory:"),
        ] {
            assert_eq!(unmigrated(url), connected);
        }
    }
}
