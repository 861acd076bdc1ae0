//! What the user has to mend.

use std::fmt;

/// The input or the usage is wrong: every mistake, a line each.
#[derive(Debug)]
pub(crate) struct BadInput(Vec<String>);

impl BadInput {
    /// One mistake.
    pub(crate) fn new(mistake: impl fmt::Display) -> Self {
        Self(vec![mistake.to_string()])
    }

    /// Succeeds when there is no mistake.
    pub(crate) fn unless_empty(mistakes: Vec<String>) -> Result<(), Self> {
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(Self(mistakes))
        }
    }
}

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        for (n, mistake) in self.0.iter().take(SHOWN).enumerate() {
            let separator = if n == 0 { "" } else { "\n" };
            write!(f, "{separator}{mistake}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n… and {more} more"),
        }
    }
}

impl std::error::Error for BadInput {}
