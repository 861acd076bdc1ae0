//! What the service is told when it starts.

use std::{env, fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Parser, value_parser};

use crate::signature::Secret;

/// The variable with the secret. There is no such argument, since others on a machine see those.
const SECRET: &str = "WEBHOOK_SECRET";

/// Takes GitHub's webhooks, relays them, and counts them per repository, effectively once and in order.
#[derive(Debug, Parser)]
#[command(name = "webhook-relay", version)]
pub(crate) struct Args {
    /// Where to listen. Show the world /webhooks alone, through a proxy that ends TLS
    #[arg(
        long,
        env = "WEBHOOK_RELAY_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080"
    )]
    pub(crate) listen: SocketAddr,
    /// The store: `postgres://…`, or `memory:`, which forgets everything with the process
    #[arg(
        long,
        env = "WEBHOOK_RELAY_STORE",
        value_name = "URL",
        default_value = "memory:",
        hide_env_values = true
    )]
    pub(crate) store: String,
    /// The transport: as the store, or `amqp://…`. Without it, the store is the transport too
    #[arg(
        long,
        env = "WEBHOOK_RELAY_TRANSPORT",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) transport: Option<String>,
    /// A file with the secret of the webhook, in which a line break at its end does not count. Without it, the variable
    /// WEBHOOK_SECRET has the secret
    #[arg(long, env = "WEBHOOK_SECRET_FILE", value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The largest body in bytes. GitHub sends up to 25 MB, the providers take 1 MiB to 8 MiB unless told otherwise
    #[arg(long, value_name = "BYTES", default_value_t = 1024 * 1024, value_parser = value_parser!(u32).range(1..=64 * 1024 * 1024))]
    pub(crate) max_body: u32,
    /// The most webhooks at once; more are told to come again
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) max_requests: u32,
    /// How long one request may take, in seconds. GitHub waits for ten
    #[arg(long, value_name = "SECONDS", default_value_t = 9, value_parser = value_parser!(u64).range(1..=300))]
    request_timeout: u64,
    /// How long what a process holds waits for it when it is gone, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = value_parser!(u64).range(1..=3_600))]
    lease: u64,
}

impl Args {
    /// The secret of the webhook, from its file or its variable.
    pub(crate) fn secret(&self) -> Result<Secret> {
        let (text, place) = match &self.secret_file {
            Some(file) => {
                let place = format!("--secret-file {}", file.display());
                (fs::read_to_string(file).context(place.clone())?, place)
            }
            None => (env::var(SECRET).context(SECRET)?, SECRET.to_owned()),
        };
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        text.parse::<Secret>().context(place)
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout)
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_secs(self.lease)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn should_be_consistent_when_clap_checks_it() {
        Args::command().debug_assert();
    }
}
