//! What is answered over HTTP.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    error_handling::HandleErrorLayer,
    extract::{
        DefaultBodyLimit, Query, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode},
    middleware,
    routing::{get, post},
};
use headless::Runtime;
use serde::Deserialize;
use serde_json::{Value, json};
use tower::{BoxError, ServiceBuilder, limit::GlobalConcurrencyLimitLayer, load_shed::LoadShedLayer};
use tower_http::timeout::TimeoutLayer;

use crate::{
    refusal::Refusal,
    signature::Secret,
    storage::{Storage, Stored},
    trace,
    webhook::Webhook,
};

/// The most repositories that one answer lists.
const LONGEST_PAGE: u16 = 1_000;

/// What every request needs.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// Only lent to requests: whoever owns it ends it when no request is under way.
    pub(crate) runtime: Weak<Runtime>,
    pub(crate) storage: Storage,
    pub(crate) secret: Secret,
}

/// How much a server takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The largest body in bytes.
    pub(crate) body: usize,
    /// The most webhooks at once.
    pub(crate) requests: usize,
    /// How long a request may take.
    pub(crate) time: Duration,
}

impl Server {
    /// The routes, within these limits. What is over them is refused at once; nothing waits in line.
    pub(crate) fn router(self, limits: Limits) -> Router {
        let bounded = ServiceBuilder::new()
            .layer(HandleErrorLayer::new(async |_overload: BoxError| Refusal::Busy))
            .layer(LoadShedLayer::new())
            .layer(GlobalConcurrencyLimitLayer::new(limits.requests));
        Router::new()
            .route(
                "/webhooks",
                post(receive)
                    .layer(bounded)
                    .layer(middleware::from_fn(trace::request)),
            )
            .route("/healthz", get(health))
            .route("/stats", get(statistics))
            .layer(DefaultBodyLimit::max(limits.body))
            .layer(TimeoutLayer::with_status_code(
                StatusCode::SERVICE_UNAVAILABLE,
                limits.time,
            ))
            .with_state(self)
    }

    fn runtime(&self) -> Result<Arc<Runtime>, Refusal> {
        self.runtime.upgrade().ok_or(Refusal::Stopping)
    }
}

/// Answers only when the webhook is stored, with its message. Whoever gets no answer, or a 503, sends it again: a webhook
/// that is there already is not stored twice.
async fn receive(
    State(server): State<Server>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let body = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge,
        _ => Refusal::Malformed(error.body_text()),
    })?;
    let webhook = Webhook::parse(&server.secret, &headers, body)?;
    let answer = match server.storage.store(&*server.runtime()?, &webhook).await? {
        Stored::Now { number } => json!({ "stored": true, "number": number }),
        Stored::Before => json!({ "stored": false, "why": "it was stored before" }),
    };
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

/// Whether this process does its work.
async fn health(State(server): State<Server>) -> Result<(StatusCode, Json<Value>), Refusal> {
    let problems = server.runtime()?.health().problems();
    let status = match problems.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    Ok((status, Json(json!({ "problems": problems }))))
}

/// Which repositories are asked for.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Page {
    /// Those after this one, by name.
    after: String,
    /// So many at most.
    limit: u16,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            after: String::new(),
            limit: 100,
        }
    }
}

/// The statistics of repositories in the order of their names, and what waits.
async fn statistics(
    State(server): State<Server>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let Query(page) = page.map_err(|error| Refusal::Malformed(error.body_text()))?;
    if !(1..=LONGEST_PAGE).contains(&page.limit) {
        return Err(Refusal::Malformed(format!(
            "limit is {}: give 1 to {LONGEST_PAGE}",
            page.limit
        )));
    }
    let backlog = server.runtime()?.backlog().await?;
    let repositories = server.storage.statistics(&page.after, page.limit).await?;
    Ok(Json(json!({
        "repositories": repositories,
        "backlog": {
            "outbox": backlog.outbox,
            "lag": backlog.lag,
            "running": backlog.running,
            "parked": backlog.parked,
            "dead": backlog.dead,
        },
    })))
}
