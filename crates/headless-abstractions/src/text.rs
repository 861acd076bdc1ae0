//! Text fields of the envelope: bounded, without control characters, valid once they exist.

use std::{fmt, sync::Arc};

use crate::{Error, Result};

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $field:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            #[doc = concat!("The longest ", $field, " in bytes.")]
            pub const MAX_BYTES: usize = $max;

            #[doc = concat!("Parses a ", $field, ": not empty, no control characters (NUL among them), at most ", $max, " bytes.")]
            ///
            /// # Errors
            /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) or [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge),
            /// naming the field and the limit.
            pub fn parse(text: impl AsRef<str>) -> Result<Self> {
                let text = text.as_ref();
                check($field, text, $max)?;
                Ok(Self(text.into()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_type!(
    /// What messages of one key share: they keep their order, and an ordered topic puts them in one partition.
    PartitionKey, "partition key", 512
);
text_type!(
    /// The name of a business operation: within a group, one message per idempotency key takes effect.
    IdempotencyKey, "idempotency key", 512
);
text_type!(
    /// The kind of event or command in the payload, when several share a topic.
    MessageType, "message type", 256
);
text_type!(
    /// The media type of the payload, such as `application/json`.
    ContentType, "content type", 256
);
text_type!(
    /// What ties the messages of one business conversation together.
    CorrelationId, "correlation id", 256
);
text_type!(
    /// The tenant on whose behalf a message was published. A label, not a credential.
    Tenant, "tenant", 256
);

/// The rule of every text field and header value: `max` bytes, no control characters.
pub(crate) fn check(field: &str, text: &str, max: usize) -> Result<()> {
    if text.is_empty() {
        return Err(Error::invalid(format!("{field} is empty")));
    }
    check_content(field, text, max)
}

/// As [`check`], but an empty text passes.
pub(crate) fn check_content(field: &str, text: &str, max: usize) -> Result<()> {
    if text.len() > max {
        return Err(Error::too_large(field, text.len(), max));
    }
    if let Some((at, wrong)) = text.char_indices().find(|(_, c)| c.is_control()) {
        let code = u32::from(wrong);
        return Err(Error::invalid(format!(
            "{field} contains the control character U+{code:04X} at byte {at}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn should_name_field_and_limit_when_refused() {
        let error = PartitionKey::parse("a\0b").unwrap_err();
        assert_eq!(
            error.to_string(),
            "partition key contains the control character U+0000 at byte 1"
        );
        let error = Tenant::parse("x".repeat(257)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert_eq!(error.to_string(), "tenant is 257 bytes, the limit is 256");
        assert_eq!(
            IdempotencyKey::parse("").unwrap_err().to_string(),
            "idempotency key is empty"
        );
    }

    #[test]
    fn should_accept_unicode_when_it_is_printable() {
        assert_eq!(
            PartitionKey::parse("Zürich/東京").unwrap().as_str(),
            "Zürich/東京"
        );
    }
}
