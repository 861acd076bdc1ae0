//! GitHub, as far as it delivers webhooks.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use sha2::Sha256;

use crate::node::Node;

/// The secret that it shares with the service.
pub(crate) const SECRET: &str = "It's a Secret to Everybody";
/// How long it waits for an answer.
const WAITS: Duration = Duration::from_secs(10);

/// A webhook.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    pub(crate) event: String,
    /// Where the service has to count it.
    pub(crate) repository: String,
    pub(crate) body: String,
}

pub(crate) fn client() -> Client {
    Client::builder().timeout(WAITS).no_proxy().build().unwrap()
}

fn signature(body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    let digits = mac.chain_update(body).finalize().into_bytes();
    format!("sha256={}", hex::encode(digits))
}

/// The request that delivers a webhook.
pub(crate) fn request(client: &Client, node: &Node, delivery: &Delivery) -> RequestBuilder {
    to(client, &node.url("/webhooks"), delivery)
}

/// The same, to a URL.
pub(crate) fn to(client: &Client, url: &str, delivery: &Delivery) -> RequestBuilder {
    client
        .request(Method::POST, url)
        .header("content-type", "application/json")
        .header("x-github-event", &delivery.event)
        .header("x-github-delivery", &delivery.id)
        .header("x-hub-signature-256", signature(delivery.body.as_bytes()))
        .body(delivery.body.clone())
}

/// The answer as JSON, with its status.
pub(crate) async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response: Response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}
