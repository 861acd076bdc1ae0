//! The RabbitMQ provider of headless: a transport. An unordered topic is one quorum queue for each group; an ordered one
//! has a classic queue for each partition, with a single active consumer.
//!
//! ```no_run
//! use headless_rabbitmq::RabbitMq;
//!
//! # async fn example() -> headless_abstractions::Result<()> {
//! let rabbitmq = RabbitMq::connect("amqp://app:secret@rabbit/shop?namespace=billing").await?;
//! # let _ = rabbitmq;
//! # Ok(())
//! # }
//! ```
//!
//! All names on the server begin with the namespace, `headless` unless another is given. See
//! `docs/providers/rabbitmq.md` for what is made, the rights that it needs, and its limits.

mod channel;
mod clock;
mod config;
mod connection;
mod delay;
mod envelope;
mod error;
mod examine;
mod names;
mod publisher;
mod rabbitmq;
mod registry;
mod subscriber;
mod talk;
mod transport;

pub use config::RabbitMqConfig;
pub use names::Namespace;
pub use rabbitmq::RabbitMq;
