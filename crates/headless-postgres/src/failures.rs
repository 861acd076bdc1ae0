//! Failures as they are stored with a row: a JSON array, the oldest first.

use chrono::{DateTime, SecondsFormat, Utc};
use headless_abstractions::{Error, ErrorKind, Failure, FailureCause, Result};
use serde::{Deserialize, Serialize};

/// One failure as it is stored. A cause is written by its stable name.
#[derive(Serialize, Deserialize)]
struct Stored {
    cause: String,
    message: String,
    node: String,
    at: String,
}

/// These failures as a JSON array. The server's text holds no NUL: one in the label of a node is replaced.
///
/// # Errors
/// `Internal` when it cannot be written.
pub(crate) fn to_json(failures: &[Failure]) -> Result<String> {
    let stored: Vec<Stored> = failures.iter().map(stored).collect();
    serde_json::to_string(&stored).map_err(|error| {
        Error::new(ErrorKind::Internal, "failures could not be written as JSON").with_source(error)
    })
}

/// The failures of a stored JSON array; `None` stands for none.
///
/// # Errors
/// `Internal` for what no statement of ours has written.
pub(crate) fn from_json(text: Option<&str>) -> Result<Vec<Failure>> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let stored: Vec<Stored> = serde_json::from_str(text).map_err(|error| foreign().with_source(error))?;
    stored.into_iter().map(failure).collect()
}

fn stored(failure: &Failure) -> Stored {
    Stored {
        cause: failure.cause.as_str().to_owned(),
        message: failure.message.replace('\0', "\u{fffd}"),
        node: failure.node.replace('\0', "\u{fffd}"),
        at: failure.at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
    }
}

fn failure(stored: Stored) -> Result<Failure> {
    let cause = FailureCause::from_name(&stored.cause).ok_or_else(foreign)?;
    let at = DateTime::parse_from_rfc3339(&stored.at).map_err(|error| foreign().with_source(error))?;
    Ok(Failure::new(
        cause,
        stored.message,
        stored.node,
        at.with_timezone(&Utc),
    ))
}

fn foreign() -> Error {
    Error::new(
        ErrorKind::Internal,
        "the failures of a row are not as this version writes them",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_give_back_what_was_stored_when_read() {
        let at = DateTime::from_timestamp(1_790_000_000, 123_456_789).unwrap();
        let failures: Vec<_> = FailureCause::ALL
            .into_iter()
            .map(|cause| Failure::new(cause, "a \"b\" \u{1} 東京", "node-1", at))
            .collect();
        let text = to_json(&failures).unwrap();
        assert_eq!(from_json(Some(&text)).unwrap(), failures);
        assert_eq!(from_json(None).unwrap(), Vec::new());
    }

    #[test]
    fn should_replace_nul_when_a_label_has_one() {
        let failure = Failure::new(FailureCause::Error, "m", "a\0b", DateTime::UNIX_EPOCH);
        let text = to_json(&[failure]).unwrap();
        assert!(!text.contains("\\u0000"), "{text}");
        assert_eq!(from_json(Some(&text)).unwrap()[0].node, "a\u{fffd}b");
    }

    #[test]
    fn should_refuse_what_it_has_not_written_when_read() {
        for text in [
            "",
            "{}",
            "[1]",
            r#"[{"cause":"?","message":"","node":"","at":""}]"#,
        ] {
            assert_eq!(
                from_json(Some(text)).unwrap_err().kind(),
                ErrorKind::Internal,
                "{text}"
            );
        }
    }
}
