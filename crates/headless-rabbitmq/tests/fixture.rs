//! The fixture: a namespace of its own for each case, and nodes that a crash can cut off.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{Error, ErrorKind, GroupName, Result, TopicName, Transport};
use headless_harness::{
    FaultProxy, Fixture, Namespace, TransportFixture, TransportNode, Unavailable,
    services::{self, PrivateRabbitMq},
};
use headless_rabbitmq::{RabbitMq, RabbitMqConfig};
use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::{task::spawn_blocking, time::timeout};

/// The namespace of one case.
#[derive(Debug)]
pub(crate) struct RabbitMqFixture {
    url: String,
    namespace: Namespace,
    version: String,
    /// The server, where it is one of the case's own.
    own: Option<Arc<Mutex<PrivateRabbitMq>>>,
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

    async fn at(
        url: String,
        own: Option<PrivateRabbitMq>,
        namespace: Namespace,
    ) -> Result<Self, Unavailable> {
        let version = services::rabbitmq_version(&url)?;
        Ok(Self {
            url,
            namespace,
            version,
            own: own.map(|own| Arc::new(Mutex::new(own))),
            ways: Mutex::default(),
        })
    }

    /// Returns once the server has what was declared on it: it listens before that.
    async fn is_whole(&self) -> Result<()> {
        let registry = format!("{}!registry", self.namespace);
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        loop {
            let looked = async {
                let rabbitmq = self.directly().await?;
                let channel = rabbitmq.client().await?;
                let found = channel.queue_declare(registry.clone().into(), options, FieldTable::default());
                found.await.map_err(fault)?;
                rabbitmq.close().await
            };
            if looked.await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn directly(&self) -> Result<RabbitMq> {
        RabbitMq::connect_with(self.config(&self.url)?).await
    }
}

#[async_trait]
impl Fixture for RabbitMqFixture {
    const LEASE: Duration = Duration::from_secs(2);

    async fn open(namespace: Namespace) -> Result<Self, Unavailable> {
        Self::at(services::rabbitmq()?, None, namespace).await
    }

    async fn open_restartable(namespace: Namespace) -> Result<Self, Unavailable> {
        let own = spawn_blocking(services::private_rabbitmq)
            .await
            .map_err(|ended| Unavailable::Broken(ended.to_string()))??;
        Self::at(own.url(), Some(own), namespace).await
    }

    async fn restart_server(&self) -> Result<bool> {
        let Some(own) = self.own.clone() else {
            return Ok(false);
        };
        spawn_blocking(move || own.lock().unwrap_or_else(PoisonError::into_inner).restart())
            .await
            .map_err(|ended| Error::new(ErrorKind::Internal, "restarting panicked").with_source(ended))?
            .map_err(no_way)?;
        timeout(Self::PATIENCE, self.is_whole())
            .await
            .map_err(|_elapsed| {
                Error::new(ErrorKind::Timeout, "the server does not have what was declared")
            })??;
        Ok(true)
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    async fn drop_namespace(self) -> Result<()> {
        if let Some(own) = self.own {
            // Stopping it blocks.
            return spawn_blocking(move || drop(own))
                .await
                .map_err(|ended| Error::new(ErrorKind::Internal, "stopping panicked").with_source(ended));
        }
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
