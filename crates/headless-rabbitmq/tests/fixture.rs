//! The fixture: a namespace of its own for each case, and nodes that a crash can cut off.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{Error, ErrorKind, GroupName, Result, TopicName, Transport};
use headless_harness::{
    FaultProxy, Fixture, Namespace, TransportFixture, TransportNode, Unavailable, services,
};
use headless_rabbitmq::{RabbitMq, RabbitMqConfig};
use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, QueueDeclareOptions},
    types::FieldTable,
};

/// The namespace of one case.
#[derive(Debug)]
pub(crate) struct RabbitMqFixture {
    url: String,
    namespace: Namespace,
    version: String,
    /// The ways of the nodes to the server. They last as long as the case, whatever it keeps of a node.
    ways: Mutex<Vec<Arc<FaultProxy>>>,
}

impl RabbitMqFixture {
    fn config(&self, url: &str) -> Result<RabbitMqConfig> {
        // Small enough that a case can send more than this without filling the machine.
        const PAYLOAD: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();
        let namespace = headless_rabbitmq::Namespace::parse(self.namespace.as_str())?;
        Ok(RabbitMqConfig::new(url)?
            .with_namespace(namespace)
            .with_max_payload(PAYLOAD))
    }

    async fn directly(&self) -> Result<RabbitMq> {
        RabbitMq::connect_with(self.config(&self.url)?).await
    }
}

#[async_trait]
impl Fixture for RabbitMqFixture {
    const LEASE: Duration = Duration::from_secs(2);

    async fn open(namespace: Namespace) -> Result<Self, Unavailable> {
        let url = services::rabbitmq()?;
        let version = services::rabbitmq_version(&url)?;
        Ok(Self {
            url,
            namespace,
            version,
            ways: Mutex::default(),
        })
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    async fn drop_namespace(self) -> Result<()> {
        let rabbitmq = self.directly().await?;
        rabbitmq.delete_namespace().await?;
        rabbitmq.close().await
    }
}

#[async_trait]
impl TransportFixture for RabbitMqFixture {
    async fn node(&self) -> Result<TransportNode> {
        let way = Arc::new(FaultProxy::in_front_of(&self.url).map_err(no_way)?);
        let url = way.url_for(&self.url).map_err(no_way)?;
        self.ways
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(way.clone());
        let rabbitmq = RabbitMq::connect_with(self.config(&url)?).await?;
        Ok(TransportNode::new(Arc::new(rabbitmq), move || way.reset()))
    }

    async fn send_foreign(&self, topic: &TopicName, payload: &[u8]) -> Result<bool> {
        let rabbitmq = self.directly().await?;
        let exchange = format!("{}:{topic}", self.namespace);
        rabbitmq
            .client()
            .await?
            .basic_publish(
                exchange.into(),
                "".into(),
                BasicPublishOptions::default(),
                payload,
                BasicProperties::default(),
            )
            .await
            .map_err(fault)?;
        rabbitmq.close().await?;
        Ok(true)
    }

    async fn group_exists(&self, group: &GroupName) -> Result<Option<bool>> {
        let rabbitmq = self.directly().await?;
        let members = format!("{}:{group}!members", self.namespace);
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let channel = rabbitmq.client().await?;
        let found = channel
            .queue_declare(members.into(), options, FieldTable::default())
            .await;
        rabbitmq.close().await?;
        Ok(Some(found.is_ok()))
    }
}

fn fault(error: lapin::Error) -> Error {
    Error::new(ErrorKind::Internal, "the fixture's own call failed").with_source(error)
}

fn no_way(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "no way to the server").with_source(error)
}
