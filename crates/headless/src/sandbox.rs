//! A place of one's own on servers that others use too.

use std::hash::{BuildHasher, RandomState};

use headless_abstractions::Result;
#[cfg(feature = "postgres")]
use headless_postgres::{Postgres, PostgresConfig};
#[cfg(feature = "rabbitmq")]
use headless_rabbitmq::{RabbitMq, RabbitMqConfig};

/// A place of one's own on servers that others use too, for tests and trials of an application: nothing in it meets what
/// is outside, and [`remove`](Self::remove) leaves nothing of it.
///
/// In a database of PostgreSQL it is a schema, on RabbitMQ a namespace, in memory a server by name; on another server
/// there is none, and its URL stays as it is.
///
/// ```
/// use headless::{Providers, Sandbox};
///
/// # #[tokio::main]
/// # async fn main() -> headless::Result<()> {
/// let sandbox = Sandbox::new();
/// let url = sandbox.url("memory:");
/// let connected = Providers::builtin().connect(&url).await?;
/// // … what the test does …
/// sandbox.remove(&url).await?;
/// # let _ = connected;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Sandbox {
    name: String,
}

impl Sandbox {
    /// A new one, of a name that no other has.
    #[must_use]
    pub fn new() -> Self {
        let name = format!("headless_sandbox_{:016x}", RandomState::new().hash_one(()));
        Self { name }
    }

    /// The URL of this place on the server at a URL. It takes the place of a schema or namespace that the URL names.
    #[must_use]
    pub fn url(&self, server: &str) -> String {
        if server == "memory:" {
            return format!("memory:{}", self.name);
        }
        let setting = match server.split(':').next() {
            Some("postgres" | "postgresql") => "schema=",
            Some("amqp" | "amqps") => "namespace=",
            _ => return server.to_owned(),
        };
        let (server, query) = server.split_once('?').unwrap_or((server, ""));
        let others = query
            .split('&')
            .filter(|other| !other.is_empty() && !other.starts_with(setting));
        let others: String = others.flat_map(|other| [other, "&"]).collect();
        format!("{server}?{others}{setting}{}", self.name)
    }

    /// Removes what was made at a URL of this place, with everything in it, whoever made it. Does nothing for other URLs,
    /// and where nothing was made. What is in memory goes with its last handle instead.
    ///
    /// # Errors
    /// What connecting or removing answers.
    ///
    /// # Cancel safety
    /// A schema goes whole or not at all. Of a namespace some may be left: remove it again.
    pub async fn remove(&self, url: &str) -> Result<()> {
        match url.split(':').next() {
            #[cfg(feature = "postgres")]
            Some("postgres" | "postgresql") => {
                let config = PostgresConfig::new(url)?;
                if config.schema.as_str() == self.name {
                    Postgres::remove(&config).await?;
                }
            }
            #[cfg(feature = "rabbitmq")]
            Some("amqp" | "amqps") => {
                let config = RabbitMqConfig::new(url)?;
                if config.namespace.as_str() == self.name {
                    RabbitMq::connect_with(config).await?.delete_namespace().await?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_keep_what_the_url_says_when_a_place_is_added() {
        let sandbox = Sandbox::new();
        for (url, wanted) in [
            ("memory:", "memory:NAME"),
            ("memory:mine", "memory:mine"),
            ("sqs://queue", "sqs://queue"),
            ("amqp://h/v?namespace=mine", "amqp://h/v?namespace=NAME"),
            ("postgres://h/db", "postgres://h/db?schema=NAME"),
            (
                "postgresql://h/db?max_connections=2&schema=mine&sslmode=disable",
                "postgresql://h/db?max_connections=2&sslmode=disable&schema=NAME",
            ),
        ] {
            assert_eq!(sandbox.url(url), wanted.replace("NAME", &sandbox.name));
        }
        assert_ne!(sandbox.name, Sandbox::new().name);
    }
}
