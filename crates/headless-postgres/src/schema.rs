//! The name of the schema that the provider's objects live in.

use std::{fmt, str::FromStr};

use headless_abstractions::{Error, Result};

/// The name of the schema that the provider's objects live in: `[a-z_][a-z0-9_]*`, at most 48 bytes, not beginning with
/// `pg_`. One that exists is valid, so that it can be put into statements as it is.
///
/// ```
/// use headless_postgres::Schema;
///
/// assert_eq!(Schema::default().as_str(), "headless");
/// assert!(Schema::parse("public\"; drop table x;--").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Schema(String);

impl Schema {
    /// The longest name, in bytes: names derived from it stay under the server's 63.
    pub const MAX_BYTES: usize = 48;

    /// The schema of this name.
    ///
    /// # Errors
    /// `Invalid` when it breaks the rule above.
    pub fn parse(name: &str) -> Result<Self> {
        let first = |c: u8| c.is_ascii_lowercase() || c == b'_';
        let valid = name.bytes().next().is_some_and(first)
            && name.bytes().all(|c| first(c) || c.is_ascii_digit())
            && name.len() <= Self::MAX_BYTES
            && !name.starts_with("pg_");
        if valid {
            Ok(Self(name.to_owned()))
        } else {
            Err(Error::invalid(format!(
                "schema {name:?} is refused: use [a-z_][a-z0-9_]*, at most {} bytes, not beginning with pg_",
                Self::MAX_BYTES
            )))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Schema {
    fn default() -> Self {
        Self("headless".to_owned())
    }
}

impl FromStr for Schema {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::parse(name)
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_refuse_a_name_when_it_could_be_anything_but_an_identifier() {
        let long = "a".repeat(Schema::MAX_BYTES + 1);
        for name in [
            "",
            "Upper",
            "1st",
            "a.b",
            "a-b",
            "a b",
            "a\"b",
            "a'b",
            "pg_catalog",
            "é",
            "a\0",
            &long,
            "public\"; drop table x;--",
        ] {
            let error = Schema::parse(name).unwrap_err().to_string();
            assert!(error.contains("schema"), "{name:?}: {error}");
        }
        for name in ["headless", "_x", "hl_0123456789", &"a".repeat(Schema::MAX_BYTES)] {
            assert_eq!(Schema::parse(name).unwrap().as_str(), name);
        }
    }
}
