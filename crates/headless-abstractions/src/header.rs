//! A message's own headers: names and values that exist are valid.

use std::{borrow::Borrow, collections::BTreeMap, fmt, sync::Arc};

use crate::{Error, Result, text, wire};

/// The name of a header: `[a-z0-9][a-z0-9._-]*`, at most [`HeaderName::MAX_BYTES`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeaderName(Arc<str>);

impl HeaderName {
    /// The longest name in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Parses a name that a user may set.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) when the alphabet is left or the name is reserved for the
    /// envelope (see [`wire`]); [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge).
    pub fn parse(name: &str) -> Result<Self> {
        if name.len() > Self::MAX_BYTES {
            return Err(Error::too_large("header name", name.len(), Self::MAX_BYTES));
        }
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
        if !name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            || !name.chars().all(allowed)
        {
            return Err(Error::invalid(format!(
                "header name {name:?} must start with a-z or 0-9 and go on with a-z, 0-9, '.', '_' or '-'"
            )));
        }
        if wire::is_reserved(name) {
            return Err(Error::invalid(format!(
                "header name {name:?} is reserved for the envelope"
            )));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for HeaderName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The value of a header: Unicode text without control characters, possibly empty.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeaderValue(Arc<str>);

impl HeaderValue {
    /// The longest value in bytes.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// Parses a value.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) when it contains a control character (line breaks and NUL
    /// among them); [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge).
    pub fn parse(value: &str) -> Result<Self> {
        text::check_content("header value", value, Self::MAX_BYTES)?;
        Ok(Self(value.into()))
    }

    /// The value as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The headers that a user set on a message, in the order of their names.
///
/// ```
/// use headless_abstractions::Headers;
///
/// let mut headers = Headers::new();
/// headers.insert("source", "shop").unwrap();
/// assert_eq!(headers.get("source"), Some("shop"));
/// assert!(headers.insert("hl-id", "x").is_err(), "reserved");
/// assert!(headers.insert("note", "a\r\nb").is_err(), "control characters");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(BTreeMap<HeaderName, HeaderValue>);

impl Headers {
    /// The most headers that one message carries.
    pub const MAX_COUNT: usize = 64;

    /// The most bytes that names and values of one message add up to.
    pub const MAX_TOTAL_BYTES: usize = 64 * 1024;

    /// No headers.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Sets a header, replacing one of the same name.
    ///
    /// # Errors
    /// As [`HeaderName::parse`] and [`HeaderValue::parse`], with the header's name;
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) past [`Self::MAX_COUNT`] or [`Self::MAX_TOTAL_BYTES`].
    /// Nothing was changed then.
    pub fn insert(&mut self, name: &str, value: &str) -> Result<()> {
        let name = HeaderName::parse(name)?;
        let value = HeaderValue::parse(value).map_err(|e| e.with_resource(format!("header {name}")))?;
        let replaced = self.0.get(&name).map(|old| name.0.len() + old.0.len());
        if replaced.is_none() && self.0.len() >= Self::MAX_COUNT {
            return Err(Error::new(
                crate::ErrorKind::TooLarge,
                format!("headers are more than {}", Self::MAX_COUNT),
            ));
        }
        let total = self.total_bytes() - replaced.unwrap_or(0) + name.0.len() + value.0.len();
        if total > Self::MAX_TOTAL_BYTES {
            return Err(Error::too_large("headers", total, Self::MAX_TOTAL_BYTES));
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// The value of this header.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(HeaderValue::as_str)
    }

    /// Removes a header and says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// Names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn total_bytes(&self) -> usize {
        self.0
            .iter()
            .map(|(name, value)| name.0.len() + value.0.len())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn should_keep_what_was_set_when_values_are_empty_or_unicode() {
        let mut headers = Headers::new();
        headers.insert("empty", "").unwrap();
        headers.insert("city", "Zürich 東京 🦀").unwrap();
        assert_eq!(
            headers.iter().collect::<Vec<_>>(),
            [("city", "Zürich 東京 🦀"), ("empty", "")]
        );
    }

    #[test]
    fn should_refuse_when_reserved_or_malformed() {
        let mut headers = Headers::new();
        for name in [
            "",
            "hl-id",
            "hl-anything",
            "traceparent",
            "tracestate",
            "content-type",
            "Upper",
            "a b",
            "ä",
            "a\0",
        ] {
            assert_eq!(
                headers.insert(name, "x").unwrap_err().kind(),
                ErrorKind::Invalid,
                "{name:?}"
            );
        }
        for value in ["a\nb", "a\rb", "a\0b", "\u{7f}", "\u{85}"] {
            let error = headers.insert("note", value).unwrap_err();
            assert!(error.to_string().contains("header note"), "{error}");
        }
        assert!(headers.is_empty());
    }

    #[test]
    fn should_refuse_when_over_count_or_size() {
        let mut headers = Headers::new();
        for n in 0..Headers::MAX_COUNT {
            headers.insert(&format!("h{n}"), "").unwrap();
        }
        assert_eq!(
            headers.insert("one-more", "").unwrap_err().kind(),
            ErrorKind::TooLarge
        );
        headers.insert("h1", "replacing is fine").unwrap();

        let mut headers = Headers::new();
        let value = "x".repeat(HeaderValue::MAX_BYTES);
        assert!(headers.insert("a", &format!("{value}x")).is_err());
        for name in ["a", "b", "c"] {
            headers.insert(name, &value).unwrap();
        }
        assert_eq!(
            headers.insert("d", &value).unwrap_err().kind(),
            ErrorKind::TooLarge
        );
        headers.insert("c", "less").unwrap();
    }
}
