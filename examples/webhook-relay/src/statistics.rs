//! What is counted of each repository.

use std::collections::BTreeMap;

use headless::{Context, HandlerResult};
use serde::{Deserialize, Serialize};

use crate::{storage::Storage, webhook::WebhookReceived};

/// What is known of a repository.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Statistics {
    /// Its name.
    pub(crate) repository: String,
    /// How many webhooks were received.
    pub(crate) received: i64,
    /// How many of them are counted here.
    pub(crate) handled: i64,
    /// How often a webhook was not the one after the last. Stays 0, unless one became a dead letter.
    pub(crate) gaps: i64,
    /// How many are counted, by event.
    pub(crate) events: BTreeMap<String, i64>,
}

/// Counts a webhook: the handler of the group `statistics`.
pub(crate) async fn count(webhook: WebhookReceived, cx: Context) -> HandlerResult {
    let storage = cx.state::<Storage>()?;
    storage.count(&cx, &webhook).await
}
