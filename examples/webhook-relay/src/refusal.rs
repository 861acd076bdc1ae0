//! Why a request is not answered as it was meant to be.

use axum::{
    Json,
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use headless::{ErrorKind, postgres::sqlx};
use serde_json::json;

/// When to come again, in seconds.
const LATER: &str = "5";

/// Why a request is not answered as it was meant to be.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The signature is missing, or is not that of the body.
    Unsigned,
    /// The request is not what GitHub sends: says what is wrong.
    Malformed(String),
    /// It is larger than we take.
    TooLarge,
    /// As many requests as we take at once are under way.
    Busy,
    /// This process is about to end.
    Stopping,
    /// The store, or the transport, cannot do it now. What was asked for may have happened; whoever asks again finds out.
    Away(String),
    /// It will never be done, and that is our mistake.
    Ours(String),
}

impl Refusal {
    const fn status(&self) -> StatusCode {
        match self {
            Self::Unsigned => StatusCode::UNAUTHORIZED,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy | Self::Stopping | Self::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Ours(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What the other side is told: of its mistakes everything, of our troubles nothing.
    fn text(&self) -> &str {
        match self {
            Self::Unsigned => "X-Hub-Signature-256 is not the signature of this body",
            Self::Malformed(why) => why,
            Self::TooLarge => "the body is larger than this service takes",
            Self::Busy => "too many requests at once, come again",
            Self::Stopping => "this process is about to end, come again",
            Self::Away(_) => "not now, come again",
            Self::Ours(_) => "this service failed",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        match &self {
            Self::Away(why) => tracing::warn!(why, "a request is told to come again"),
            Self::Ours(why) => tracing::error!(why, "a request failed"),
            refusal => tracing::info!(status = status.as_u16(), "refused: {}", refusal.text()),
        }
        let body = Json(json!({ "error": self.text() }));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return (status, [(RETRY_AFTER, LATER)], body).into_response();
        }
        (status, body).into_response()
    }
}

impl From<headless::Error> for Refusal {
    fn from(error: headless::Error) -> Self {
        match error.kind() {
            ErrorKind::TooLarge => Self::TooLarge,
            ErrorKind::Invalid | ErrorKind::Unsupported => Self::Ours(error.to_string()),
            // The rest passes, or is mended without us. Whoever comes again with the same id changes nothing twice.
            _ => Self::Away(error.to_string()),
        }
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Away(error.to_string())
    }
}
