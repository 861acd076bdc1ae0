//! The stream that the registry is written down in.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use headless_abstractions::{Error, ErrorKind, Result};
use lapin::{
    BasicProperties, Consumer,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::timeout;
use uuid::Uuid;

use super::{Known, damaged};
use crate::{
    channel::Chan,
    connection::Live,
    error::{NAME, fault},
};

/// How long a stream that has a record may take to show it before it is looked at more closely.
const SHOWN: Duration = Duration::from_secs(1);
/// The stream is cut into segments of this many bytes, and old ones are dropped beyond ten of them.
const SEGMENT: i32 = 4_000_000;

/// How a record begins that only shows where the stream ends.
const MARK: &[u8] = b"{\"mark\"";

/// What the last record says; `None` when there is no stream.
pub(super) async fn read(live: &Live, stream: ShortString) -> Result<Option<Known>> {
    let Some(mut last) = Reader::of(live, stream).await? else {
        return Ok(None);
    };
    // A mark is followed by the record.
    let known = loop {
        let record = last.next().await?;
        if !record.starts_with(MARK) {
            break Known::parse(&record)?;
        }
    };
    last.end().await;
    Ok(Some(known))
}

/// What is there, under the lock, and whether it stands in the last record.
pub(super) async fn read_for_change(live: &Arc<Live>, stream: ShortString) -> Result<(Known, bool)> {
    let Some(mut last) = Reader::of(live, stream.clone()).await? else {
        make(live, stream.clone()).await?;
        // So that readers find something.
        write(live, stream, &Known::default()).await?;
        return Ok((Known::default(), true));
    };
    match timeout(SHOWN, last.next()).await {
        Ok(record) => {
            let record = record?;
            if !record.starts_with(MARK) {
                last.end().await;
                return Ok((Known::parse(&record)?, true));
            }
        }
        Err(_slow_or_empty) => {}
    }
    last.end().await;
    // A writer died half-way, or the server is slow. Nobody else writes now: what stands before a mark of ours is all.
    let mark = format!("{{\"mark\":\"{}\"}}", Uuid::new_v4());
    publish(live, stream.clone(), mark.as_bytes()).await?;
    let mut all = Reader::from(live, stream, "first")
        .await?
        .ok_or_else(|| damaged("the registry went while it was read"))?;
    let mut known = Known::default();
    loop {
        let record = all.next().await?;
        if record == mark.as_bytes() {
            break;
        }
        if !record.starts_with(MARK) {
            known = Known::parse(&record)?;
        }
    }
    all.end().await;
    Ok((known, false))
}

async fn make(live: &Live, stream: ShortString) -> Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    arguments.insert(
        "x-stream-max-segment-size-bytes".into(),
        AMQPValue::LongInt(SEGMENT),
    );
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongInt(10 * SEGMENT));
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let channel = live.channel().await?;
    channel
        .queue_declare(stream, options, arguments)
        .await
        .map_err(fault)?;
    Ok(())
}

pub(super) async fn write(live: &Arc<Live>, stream: ShortString, known: &Known) -> Result<()> {
    publish(live, stream, &known.to_record()?).await
}

async fn publish(live: &Arc<Live>, stream: ShortString, record: &[u8]) -> Result<()> {
    let channel = live.publisher().await?;
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let confirm = channel
        .basic_publish(
            "".into(),
            stream,
            options,
            record,
            BasicProperties::default().with_delivery_mode(2),
        )
        .await
        .map_err(fault)?
        .await
        .map_err(fault)?;
    let is_kept = confirm.is_ack() && confirm.take_message().is_none();
    channel.give_back();
    if !is_kept {
        return Err(
            Error::new(ErrorKind::Unavailable, "the registry did not take its record").with_provider(NAME),
        );
    }
    Ok(())
}

/// A reader of a stream.
struct Reader {
    channel: Chan,
    records: Consumer,
}

impl Reader {
    /// `None` when there is no stream.
    async fn of(live: &Live, stream: ShortString) -> Result<Option<Self>> {
        Self::from(live, stream, "last").await
    }

    async fn from(live: &Live, stream: ShortString, offset: &str) -> Result<Option<Self>> {
        let channel = live.channel().await?;
        // Without this the server hands out nothing of a stream.
        channel
            .basic_qos(10, BasicQosOptions::default())
            .await
            .map_err(fault)?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), AMQPValue::LongString(offset.into()));
        let consumed = channel
            .consume(stream, BasicConsumeOptions::default(), arguments)
            .await;
        match consumed {
            Ok(records) => Ok(Some(Self { channel, records })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn next(&mut self) -> Result<Vec<u8>> {
        let next = self.records.next().await;
        let delivery = next
            .ok_or_else(|| {
                Error::new(ErrorKind::Unavailable, "the registry went while it was read").with_provider(NAME)
            })?
            .map_err(fault)?;
        // Credit for the next one; a stream keeps what is acknowledged.
        delivery
            .acker
            .ack(BasicAckOptions::default())
            .await
            .map_err(fault)?;
        Ok(delivery.data)
    }

    async fn end(self) {
        self.channel.end().await;
    }
}
