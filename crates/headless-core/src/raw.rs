//! Payloads that are bytes as they are.

use bytes::Bytes;
use headless_abstractions::Result;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
    forward_to_deserialize_any,
    ser::{Error as _, Impossible},
};

use crate::codec::{Codec, Read, undecodable, unencodable};

/// Bytes as they are, `application/octet-stream`: for [`RawBytes`], text, and newtypes of them.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a unit struct has nothing to add")]
pub struct Raw;

impl Codec for Raw {
    fn content_type(&self) -> &'static str {
        "application/octet-stream"
    }

    fn encode(&self, value: &dyn erased_serde::Serialize) -> Result<Bytes> {
        value
            .serialize(BytesOnly)
            .map_err(|e| unencodable(self.content_type(), e))
    }

    fn decode(&self, bytes: &[u8], read: &mut Read<'_>) -> Result<()> {
        read(&mut <dyn erased_serde::Deserializer<'_>>::erase(Content(bytes)))
            .map_err(|e| undecodable(self.content_type(), e))
    }
}

/// A payload of bytes. With [`Raw`] it travels as it is; other codecs encode it in their own way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RawBytes(Bytes);

impl RawBytes {
    /// These bytes.
    #[must_use]
    pub const fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// These bytes, not copied.
    #[must_use]
    pub const fn from_static(bytes: &'static [u8]) -> Self {
        Self(Bytes::from_static(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl AsRef<[u8]> for RawBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for RawBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for RawBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(RawBytesVisitor)
    }
}

struct RawBytesVisitor;

impl<'de> Visitor<'de> for RawBytesVisitor {
    type Value = RawBytes;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<RawBytes, E> {
        Ok(RawBytes(Bytes::copy_from_slice(bytes)))
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<RawBytes, E> {
        Ok(RawBytes(bytes.into()))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RawBytes, E> {
        self.visit_bytes(text.as_bytes())
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<RawBytes, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(RawBytes(bytes.into()))
    }
}

type SerError = de::value::Error;

struct BytesOnly;

macro_rules! refuse {
    ($($method:ident($($arg:ty),*) -> $ok:ty;)*) => {$(
        fn $method(self, $(_: $arg),*) -> Result<$ok, SerError> {
            Err(SerError::custom("only bytes, text and newtypes of them are raw"))
        }
    )*};
}

impl Serializer for BytesOnly {
    type Ok = Bytes;
    type Error = SerError;
    type SerializeSeq = Impossible<Bytes, SerError>;
    type SerializeTuple = Impossible<Bytes, SerError>;
    type SerializeTupleStruct = Impossible<Bytes, SerError>;
    type SerializeTupleVariant = Impossible<Bytes, SerError>;
    type SerializeMap = Impossible<Bytes, SerError>;
    type SerializeStruct = Impossible<Bytes, SerError>;
    type SerializeStructVariant = Impossible<Bytes, SerError>;

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Bytes, SerError> {
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn serialize_str(self, text: &str) -> Result<Bytes, SerError> {
        self.serialize_bytes(text.as_bytes())
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Bytes, SerError> {
        value.serialize(self)
    }

    fn serialize_some<T: ?Sized + Serialize>(self, _: &T) -> Result<Bytes, SerError> {
        self.serialize_unit()
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Bytes, SerError> {
        self.serialize_unit()
    }

    refuse! {
        serialize_bool(bool) -> Bytes;
        serialize_i8(i8) -> Bytes;
        serialize_i16(i16) -> Bytes;
        serialize_i32(i32) -> Bytes;
        serialize_i64(i64) -> Bytes;
        serialize_u8(u8) -> Bytes;
        serialize_u16(u16) -> Bytes;
        serialize_u32(u32) -> Bytes;
        serialize_u64(u64) -> Bytes;
        serialize_f32(f32) -> Bytes;
        serialize_f64(f64) -> Bytes;
        serialize_char(char) -> Bytes;
        serialize_none() -> Bytes;
        serialize_unit() -> Bytes;
        serialize_unit_struct(&'static str) -> Bytes;
        serialize_unit_variant(&'static str, u32, &'static str) -> Bytes;
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }
}

struct Content<'a>(&'a [u8]);

impl<'de> Deserializer<'de> for Content<'de> {
    type Error = SerError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SerError> {
        visitor.visit_borrowed_bytes(self.0)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SerError> {
        visitor.visit_borrowed_str(std::str::from_utf8(self.0).map_err(SerError::custom)?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SerError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, SerError> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf option unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}
