//! How payloads are encoded. The content type travels with the message, so that a consumer can read several.

use std::{fmt::Debug, sync::Arc};

use bytes::Bytes;
use headless_abstractions::{ContentType, Error, Result};
use serde::de::DeserializeOwned;

/// A way to encode payloads.
///
/// Dyn-compatible through `erased_serde`; use [`decode`] to read a value of a known type.
pub trait Codec: Debug + Send + Sync + 'static {
    /// The media type that it reads and writes, without parameters: `application/json`.
    fn content_type(&self) -> &'static str;

    /// Encodes a value.
    ///
    /// # Errors
    /// `Invalid` when the value has no form in this encoding.
    fn encode(&self, value: &dyn erased_serde::Serialize) -> Result<Bytes>;

    /// Calls `read` once with a deserializer over `bytes`, and checks that nothing is left over.
    ///
    /// # Errors
    /// `Invalid` when `read` fails or bytes are left over.
    fn decode(&self, bytes: &[u8], read: &mut Read<'_>) -> Result<()>;
}

/// What [`Codec::decode`] calls with its deserializer.
pub type Read<'a> =
    dyn FnMut(&mut dyn erased_serde::Deserializer<'_>) -> Result<(), erased_serde::Error> + 'a;

/// Decodes a value of a known type.
///
/// # Errors
/// `Invalid` when the bytes are not such a value.
pub fn decode<T: DeserializeOwned>(codec: &dyn Codec, bytes: &[u8]) -> Result<T> {
    let mut value = None;
    codec.decode(bytes, &mut |deserializer| {
        value = Some(erased_serde::deserialize(deserializer)?);
        Ok(())
    })?;
    value.ok_or_else(|| undecodable(codec.content_type(), "the codec read nothing"))
}

/// JSON, `application/json`. The default.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a unit struct has nothing to add")]
pub struct Json;

impl Codec for Json {
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn encode(&self, value: &dyn erased_serde::Serialize) -> Result<Bytes> {
        serde_json::to_vec(value)
            .map(Bytes::from)
            .map_err(|e| unencodable(self.content_type(), e))
    }

    fn decode(&self, bytes: &[u8], read: &mut Read<'_>) -> Result<()> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        read(&mut <dyn erased_serde::Deserializer<'_>>::erase(
            &mut deserializer,
        ))
        .map_err(|e| undecodable(self.content_type(), e))?;
        deserializer
            .end()
            .map_err(|e| undecodable(self.content_type(), e))
    }
}

/// MessagePack with named fields, `application/msgpack`.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a unit struct has nothing to add")]
pub struct MessagePack;

impl Codec for MessagePack {
    fn content_type(&self) -> &'static str {
        "application/msgpack"
    }

    fn encode(&self, value: &dyn erased_serde::Serialize) -> Result<Bytes> {
        rmp_serde::to_vec_named(value)
            .map(Bytes::from)
            .map_err(|e| unencodable(self.content_type(), e))
    }

    fn decode(&self, bytes: &[u8], read: &mut Read<'_>) -> Result<()> {
        let mut rest = bytes;
        let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
        read(&mut <dyn erased_serde::Deserializer<'_>>::erase(
            &mut deserializer,
        ))
        .map_err(|e| undecodable(self.content_type(), e))?;
        drop(deserializer);
        if rest.is_empty() {
            Ok(())
        } else {
            Err(undecodable(
                self.content_type(),
                format!("{} bytes follow the value", rest.len()),
            ))
        }
    }
}

/// The codecs that a process knows: the first writes, all of them read.
#[derive(Clone, Debug)]
pub struct Codecs {
    known: Arc<[Arc<dyn Codec>]>,
}

impl Codecs {
    /// JSON to write; JSON, MessagePack and raw bytes to read.
    #[must_use]
    pub fn new() -> Self {
        Self {
            known: Arc::new([Arc::new(Json), Arc::new(MessagePack), Arc::new(crate::Raw)]),
        }
    }

    /// With this codec to write, and to read before the others.
    #[must_use]
    pub fn with_default(self, codec: impl Codec) -> Self {
        let codec: Arc<dyn Codec> = Arc::new(codec);
        let others = self
            .known
            .iter()
            .filter(|known| known.content_type() != codec.content_type())
            .cloned();
        Self {
            known: std::iter::once(codec.clone()).chain(others).collect(),
        }
    }

    /// The codec that writes.
    #[must_use]
    pub fn writer(&self) -> &dyn Codec {
        // `new` and `with_default` never leave it empty.
        &*self.known[0]
    }

    /// The codec that reads this content type; without one, the codec that writes.
    ///
    /// # Errors
    /// `Unsupported` for a content type that no codec reads.
    pub fn reader(&self, content_type: Option<&ContentType>) -> Result<&dyn Codec> {
        let Some(content_type) = content_type else {
            return Ok(self.writer());
        };
        let essence = content_type.as_str().split(';').next().unwrap_or_default().trim();
        self.known
            .iter()
            .map(|codec| &**codec)
            .find(|codec| codec.content_type().eq_ignore_ascii_case(essence))
            .ok_or_else(|| {
                Error::unsupported(format!("no codec is registered for the content type {essence:?}"))
            })
    }
}

impl Default for Codecs {
    fn default() -> Self {
        Self::new()
    }
}

pub(crate) fn unencodable(content_type: &str, cause: impl std::fmt::Display) -> Error {
    Error::invalid(format!("payload has no form as {content_type}: {cause}")).with_operation("encode")
}

pub(crate) fn undecodable(content_type: &str, cause: impl std::fmt::Display) -> Error {
    Error::invalid(format!(
        "payload is not the {content_type} of the expected type: {cause}"
    ))
    .with_operation("decode")
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::{Raw, RawBytes};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        id: u64,
        lines: Vec<String>,
    }

    fn order() -> Order {
        Order {
            id: 7,
            lines: vec!["a".into(), "ü".into()],
        }
    }

    #[test]
    fn should_come_back_equal_when_encoded() {
        for codec in [&Json as &dyn Codec, &MessagePack] {
            let bytes = codec.encode(&order()).unwrap();
            assert_eq!(decode::<Order>(codec, &bytes).unwrap(), order());
        }
        let bytes = Raw.encode(&RawBytes::from_static(b"\0\xff")).unwrap();
        assert_eq!(&bytes[..], b"\0\xff");
        assert_eq!(
            decode::<RawBytes>(&Raw, &bytes).unwrap(),
            RawBytes::from_static(b"\0\xff")
        );
        assert_eq!(
            decode::<String>(&Raw, &Raw.encode(&"text").unwrap()).unwrap(),
            "text"
        );
    }

    #[test]
    fn should_refuse_when_bytes_are_wrong_or_left_over() {
        for codec in [&Json as &dyn Codec, &MessagePack] {
            let mut bytes = codec.encode(&order()).unwrap().to_vec();
            assert!(decode::<Order>(codec, &bytes[..bytes.len() - 1]).is_err());
            bytes.push(b'1');
            assert!(decode::<Order>(codec, &bytes).is_err());
        }
        assert!(Raw.encode(&order()).is_err());
        assert!(decode::<Order>(&Raw, b"x").is_err());
        assert!(decode::<String>(&Raw, b"\xff").is_err());
    }

    #[test]
    fn should_refuse_nested_json_when_it_is_very_deep() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert!(decode::<serde_json::Value>(&Json, deep.as_bytes()).is_err());
    }

    #[test]
    fn should_pick_the_reader_when_the_content_type_has_parameters() {
        let codecs = Codecs::new().with_default(MessagePack);
        assert_eq!(codecs.writer().content_type(), "application/msgpack");
        let json = ContentType::parse("Application/JSON; charset=utf-8").unwrap();
        assert_eq!(
            codecs.reader(Some(&json)).unwrap().content_type(),
            "application/json"
        );
        assert!(
            codecs
                .reader(Some(&ContentType::parse("text/xml").unwrap()))
                .is_err()
        );
    }
}
