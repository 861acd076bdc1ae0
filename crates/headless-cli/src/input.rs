//! Lines of JSON, each a message.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use anyhow::Context as _;
use headless::MessageBuilder;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use crate::bad_input::BadInput;

/// What becomes of fields that are none of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fields {
    /// They are mistakes: an id or a key under another name would be lost.
    Known,
    /// They are passed over.
    Any,
}

const FIELDS: [&str; 5] = ["id", "key", "event", "headers", "payload"];

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
    /// Reads a line; the error says which, and what of it is wrong.
    fn parse(number: u64, text: &[u8], fields: Fields) -> Result<Self, String> {
        let object = text.trim_ascii_start().starts_with(b"{");
        match serde_json::from_slice(text) {
            // An array would be read as the fields in their order.
            Ok(line) if object => match unknown(text).filter(|_| fields == Fields::Known) {
                None => Ok(Self { number, ..line }),
                Some(field) => {
                    let known = FIELDS.join("`, `");
                    Err(format!("line {number}: the field `{field}` is none of `{known}`"))
                }
            },
            Ok(_) => Err(mistake(number, text, "")),
            Err(error) => Err(mistake(number, text, &without_place(&error))),
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

/// A field of an object that is none of a message.
fn unknown(text: &[u8]) -> Option<String> {
    let fields: BTreeMap<String, IgnoredAny> = serde_json::from_slice(text).ok()?;
    fields.into_keys().find(|name| !FIELDS.contains(&&**name))
}

/// What is wrong with a line that is no message; `otherwise` is said where nothing better is known.
fn mistake(number: u64, text: &[u8], otherwise: &str) -> String {
    let fields = match serde_json::from_slice(text) {
        Ok(Value::Object(fields)) => fields,
        Ok(other) => return format!("line {number} is {}, it must be an object", kind(&other)),
        Err(error) => {
            let (what, column) = (without_place(&error), error.column());
            return format!("line {number} is not JSON: {what} (column {column})");
        }
    };
    let must_be = |name: &str, value: &Value, wanted: &str| {
        format!(
            "line {number}: the field `{name}` is {}, it must be {wanted}",
            kind(value)
        )
    };
    for name in ["id", "key", "event"] {
        match fields.get(name) {
            None | Some(Value::Null | Value::String(_)) => {}
            Some(other) => return must_be(name, other, "a string"),
        }
    }
    match fields.get("headers") {
        None => {}
        Some(Value::Object(headers)) => {
            if let Some((name, other)) = headers.iter().find(|(_, value)| !value.is_string()) {
                return must_be(&format!("headers.{name}"), other, "a string");
            }
        }
        Some(other) => return must_be("headers", other, "an object"),
    }
    if fields.contains_key("payload") {
        format!("line {number}: {otherwise}")
    } else {
        lacking(number, "payload")
    }
}

/// What the parser says, without its own count of lines, of which each text is the first.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ")
        .map_or(&*text, |(what, _)| what)
        .to_owned()
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
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
pub(crate) fn lines(
    reader: impl BufRead,
    fields: Fields,
) -> impl Iterator<Item = io::Result<Result<Line, String>>> {
    reader
        .split(b'\n')
        .zip(1..)
        .filter(|(text, _)| !text.as_ref().is_ok_and(|text| text.trim_ascii().is_empty()))
        .map(move |(text, number)| text.map(|text| Line::parse(number, &text, fields)))
}

/// All lines of a file that must have an id and a key; every mistake in any of them is reported.
pub(crate) fn read_keyed(path: &Path) -> anyhow::Result<Vec<Line>> {
    let (mut keyed, mut mistakes) = (Vec::new(), Vec::new());
    for line in lines(open(path)?, Fields::Any) {
        match line.with_context(|| path.display().to_string())? {
            Ok(line) if line.id.is_none() => mistakes.push(lacking(line.number, "id")),
            Ok(line) if line.key.is_none() => mistakes.push(lacking(line.number, "key")),
            Ok(line) => keyed.push(line),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    BadInput::unless_empty(mistakes)?;
    Ok(keyed)
}

fn lacking(number: u64, field: &str) -> String {
    format!("line {number}: it lacks the field `{field}`")
}
