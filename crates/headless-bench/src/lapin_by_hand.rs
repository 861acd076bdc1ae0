//! RabbitMQ through its client alone, with the kinds of queues that the provider makes: what it is measured beside.

use anyhow::{Context as _, Result, ensure};
use headless_abstractions::{Message, TopicOrder};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use uuid::Uuid;

/// The reply code of a good-bye.
const BYE: u16 = 200;

/// An exchange with its queues, a connection that publishes and one that consumes.
#[derive(Debug)]
pub(crate) struct ByHand {
    publish: Connection,
    consume: Connection,
    publisher: Channel,
    exchange: ShortString,
    order: TopicOrder,
}

impl ByHand {
    /// One quorum queue, or a classic one with a single active consumer for each partition.
    pub(crate) async fn open(url: &str, order: TopicOrder) -> Result<Self> {
        let connect = || Connection::connect(url, ConnectionProperties::default());
        let (publish, consume) = (
            connect().await.context("--transport")?,
            connect().await.context("--transport")?,
        );
        let publisher = publish.create_channel().await?;
        publisher.confirm_select(ConfirmSelectOptions::default()).await?;
        let exchange = ShortString::from(format!("bench_raw_{}", Uuid::new_v4().simple()));
        let raw = Self {
            publish,
            consume,
            publisher,
            exchange,
            order,
        };
        raw.make().await?;
        Ok(raw)
    }

    async fn make(&self) -> Result<()> {
        let channel = &self.publisher;
        let (kind, queue_type) = if self.order.is_ordered() {
            (ExchangeKind::Direct, "classic")
        } else {
            (ExchangeKind::Fanout, "quorum")
        };
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        channel
            .exchange_declare(self.exchange.clone(), kind, durable, FieldTable::default())
            .await?;
        for (queue, key) in self.queues() {
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString(queue_type.into()));
            if self.order.is_ordered() {
                arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
            }
            let durable = QueueDeclareOptions {
                durable: true,
                ..QueueDeclareOptions::default()
            };
            channel.queue_declare(queue.clone(), durable, arguments).await?;
            let (options, none) = (QueueBindOptions::default(), FieldTable::default());
            channel
                .queue_bind(queue, self.exchange.clone(), key, options, none)
                .await?;
        }
        Ok(())
    }

    /// The queues, each with its routing key.
    fn queues(&self) -> Vec<(ShortString, ShortString)> {
        let named = |part: String| (format!("{}:{part}", self.exchange).into(), part.into());
        match self.order.partitions() {
            None => vec![named(String::new())],
            Some(partitions) => partitions.iter().map(|part| named(part.to_string())).collect(),
        }
    }

    fn key(&self, message: &Message) -> ShortString {
        let partition = self.order.partitions().zip(message.key.as_ref());
        partition.map_or_else(
            || "".into(),
            |(partitions, key)| partitions.of(key).to_string().into(),
        )
    }

    /// Publishes these, and then awaits their confirms.
    pub(crate) async fn send(&self, batch: &[Message]) -> Result<()> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let mut confirms = Vec::with_capacity(batch.len());
        for message in batch {
            let properties = BasicProperties::default()
                .with_delivery_mode(2)
                .with_message_id(message.id.to_string().into());
            let confirm = self
                .publisher
                .basic_publish(
                    self.exchange.clone(),
                    self.key(message),
                    options,
                    &message.payload,
                    properties,
                )
                .await?;
            confirms.push(confirm);
        }
        for confirm in confirms {
            let confirmed = confirm.await?;
            ensure!(
                confirmed.is_ack() && confirmed.take_message().is_none(),
                "refused"
            );
        }
        Ok(())
    }

    /// A consumer of each queue, on a channel of its own, so that what is acknowledged together is of one queue.
    pub(crate) async fn readers(&self, prefetch: usize) -> Result<Vec<Reader>> {
        let mut readers = Vec::new();
        for (queue, _) in self.queues() {
            let channel = self.consume.create_channel().await?;
            channel
                .basic_qos(u16::try_from(prefetch)?, BasicQosOptions::default())
                .await?;
            let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
            let consumer = channel.basic_consume(queue, "".into(), options, none).await?;
            readers.push(Reader { channel, consumer });
        }
        Ok(readers)
    }

    /// Removes it all.
    pub(crate) async fn close(self) -> Result<()> {
        for (queue, _) in self.queues() {
            self.publisher
                .queue_delete(queue, QueueDeleteOptions::default())
                .await?;
        }
        self.publisher
            .exchange_delete(self.exchange.clone(), ExchangeDeleteOptions::default())
            .await?;
        self.publish.close(BYE, "bye".into()).await?;
        Ok(self.consume.close(BYE, "bye".into()).await?)
    }
}

/// What consumes one queue.
#[derive(Debug)]
pub(crate) struct Reader {
    channel: Channel,
    consumer: Consumer,
}

impl Reader {
    pub(crate) fn deliveries(&self) -> Consumer {
        self.consumer.clone()
    }

    /// Acknowledges all up to this tag.
    pub(crate) async fn settle_up_to(&self, tag: u64) -> Result<()> {
        self.channel
            .basic_ack(tag, BasicAckOptions { multiple: true })
            .await?;
        Ok(())
    }

    /// Ends the channel. One that is merely dropped takes its connection with it when the server is quicker.
    pub(crate) async fn close(self) -> Result<()> {
        Ok(self.channel.close(BYE, "bye".into()).await?)
    }
}
