//! Lines of JSON, each a message.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use anyhow::Context as _;
use headless::MessageBuilder;
use serde::Deserialize;
use serde_json::Value;

use crate::bad_input::BadInput;

/// A message as a line of JSON.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Line {
    /// Counted from 1.
    #[serde(skip)]
    pub(crate) number: u64,
    /// The idempotency key.
    pub(crate) id: Option<String>,
    /// The partition key.
    pub(crate) key: Option<String>,
    /// The header `event`.
    pub(crate) event: Option<String>,
    /// Other headers.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// The body.
    pub(crate) payload: Value,
}

impl Line {
    /// Reads a line; the error says which.
    fn parse(number: u64, text: &[u8]) -> Result<Self, String> {
        match serde_json::from_slice(text) {
            Ok(line) => Ok(Self { number, ..line }),
            Err(error) => {
                let text = error.to_string();
                // The parser's own line is always the first.
                let what = text.rsplit_once(" at line ").map_or(&*text, |(what, _)| what);
                Err(format!("line {number}, column {}: {what}", error.column()))
            }
        }
    }

    /// What it says of a message that is being put together.
    pub(crate) fn describe<To>(&self, mut message: MessageBuilder<To>) -> MessageBuilder<To> {
        if let Some(id) = &self.id {
            message = message.idempotency_key(id);
        }
        if let Some(key) = &self.key {
            message = message.key(key);
        }
        let event = self.event.iter().map(|event| ("event", event));
        let headers = self.headers.iter().map(|(name, value)| (&**name, value));
        event
            .chain(headers)
            .fold(message, |message, (name, value)| message.header(name, value))
    }
}

/// The lines of a file, or of standard input for `-`; blank ones are left out.
pub(crate) fn open(path: &Path) -> Result<Box<dyn BufRead>, BadInput> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(BufReader::new(file))),
        Err(error) => Err(BadInput::new(format!("{}: {error}", path.display()))),
    }
}

/// Each line that is not blank, or what is wrong with it.
pub(crate) fn lines(reader: impl BufRead) -> impl Iterator<Item = io::Result<Result<Line, String>>> {
    reader
        .split(b'\n')
        .zip(1..)
        .filter(|(text, _)| !text.as_ref().is_ok_and(|text| text.trim_ascii().is_empty()))
        .map(|(text, number)| text.map(|text| Line::parse(number, &text)))
}

/// All lines of a file that must have an id and a key; every mistake in any of them is reported.
pub(crate) fn read_keyed(path: &Path) -> anyhow::Result<Vec<Line>> {
    let (mut keyed, mut mistakes) = (Vec::new(), Vec::new());
    for line in lines(open(path)?) {
        match line.with_context(|| path.display().to_string())? {
            Ok(line) if line.id.is_none() => mistakes.push(lacking(&line, "id")),
            Ok(line) if line.key.is_none() => mistakes.push(lacking(&line, "key")),
            Ok(line) => keyed.push(line),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    BadInput::unless_empty(mistakes)?;
    Ok(keyed)
}

fn lacking(line: &Line, field: &str) -> String {
    format!("line {}: it lacks the field `{field}`", line.number)
}
