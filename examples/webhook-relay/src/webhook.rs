//! What GitHub sends, and what we publish of it.

use std::borrow::Cow;

use axum::{body::Bytes, http::HeaderMap};
use headless::Event;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{refusal::Refusal, signature::Secret};

/// What belongs to no repository and no organisation is kept under this name.
const NOBODY: &str = "none";
/// The longest name of a repository or an event in bytes, far above what GitHub allows.
const LONGEST: usize = 200;

/// A webhook that GitHub sent: one that exists is signed, and its parts are valid.
#[derive(Debug)]
pub(crate) struct Webhook {
    /// Its id. A redelivery has the same.
    pub(crate) delivery: Uuid,
    /// What happened.
    pub(crate) event: String,
    /// Where: the repository, else the organisation.
    pub(crate) repository: String,
    /// The body as it was signed.
    pub(crate) body: Bytes,
    /// The body as JSON.
    pub(crate) payload: Value,
}

/// A webhook was received, as others are told of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WebhookReceived {
    /// Its id.
    pub(crate) delivery: Uuid,
    /// What happened.
    pub(crate) event: String,
    /// Where.
    pub(crate) repository: String,
    /// The how manieth webhook of this repository it is, counted from 1 without a gap.
    pub(crate) number: i64,
    /// What GitHub says of it.
    pub(crate) payload: Value,
}

impl Event for WebhookReceived {
    const TOPIC: &'static str = "github.webhooks";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.repository))
    }

    fn idempotency_key(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Owned(self.delivery.to_string()))
    }
}

impl Webhook {
    /// Reads a request. Nothing of an unsigned one is looked at.
    pub(crate) fn parse(secret: &Secret, headers: &HeaderMap, body: Bytes) -> Result<Self, Refusal> {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let signature = header("x-hub-signature-256").ok_or(Refusal::Unsigned)?;
        if !secret.signed(&body, signature) {
            return Err(Refusal::Unsigned);
        }
        let delivery = header("x-github-delivery").and_then(|id| Uuid::parse_str(id).ok());
        let delivery = delivery.ok_or(Refusal::Malformed("X-GitHub-Delivery is no UUID".into()))?;
        let event = name("X-GitHub-Event", header("x-github-event").unwrap_or_default())?;
        let payload: Value = serde_json::from_slice(&body).map_err(|error| {
            Refusal::Malformed(format!(
                "the body is no JSON, choose application/json as the webhook's content type: {error}"
            ))
        })?;
        let repository = [
            &payload["repository"]["full_name"],
            &payload["organization"]["login"],
        ];
        let repository = repository.into_iter().find_map(Value::as_str).unwrap_or(NOBODY);
        Ok(Self {
            delivery,
            event,
            repository: name("the repository's name", repository)?,
            body,
            payload,
        })
    }

    /// What others are told of it.
    pub(crate) fn received(&self, number: i64) -> WebhookReceived {
        WebhookReceived {
            delivery: self.delivery,
            event: self.event.clone(),
            repository: self.repository.clone(),
            number,
            payload: self.payload.clone(),
        }
    }
}

fn name(what: &str, text: &str) -> Result<String, Refusal> {
    if text.is_empty() || text.len() > LONGEST || text.chars().any(char::is_control) {
        let limit = format!("{what} has to have 1 to {LONGEST} bytes, none of them a control character");
        return Err(Refusal::Malformed(limit));
    }
    Ok(text.to_owned())
}
