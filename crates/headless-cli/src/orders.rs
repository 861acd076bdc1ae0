//! The messages of a demo: the lines of a file, or orders that are made up.

use anyhow::Result;
use serde_json::json;

use crate::{
    cli::LinesArgs,
    input::{self, Line},
};

/// The lines that the arguments ask for, each with an id and a key.
pub(crate) fn lines(args: &LinesArgs) -> Result<Vec<Line>> {
    match &args.input {
        Some(path) => input::read_keyed(path),
        None => Ok((1..=args.messages)
            .map(|number| order(number, args.keys))
            .collect()),
    }
}

fn order(number: u64, customers: u64) -> Line {
    Line {
        number,
        id: Some(format!("order-{number}")),
        key: Some(format!("customer-{}", number % customers)),
        event: Some("order.placed".to_owned()),
        payload: json!({ "order": number, "total": number % 97 }),
        ..Line::default()
    }
}
