//! How a handler fails.

use std::{error::Error as StdError, fmt, time::Duration};

use headless_abstractions::{Error, ErrorKind, RetryAdvice};

/// What a handler returns.
pub type HandlerResult = Result<(), HandlerError>;

/// What is to become of the work after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Try again, as the retry policy says.
    Retry,
    /// Try again no earlier than after this time, in a new round.
    RetryAfter(Duration),
    /// Trying again cannot help: dead-letter it.
    Permanent,
    /// Drop it: it is of no use any more, and that is no failure.
    Discard,
}

/// The error of a handler: any error, by `?`, with a verdict.
///
/// An error of headless keeps its retry advice: what is `Invalid`, `TooLarge` or `Unsupported` is permanent. Every
/// other error is tried again; say otherwise with [`permanent`](Self::permanent) or [`discard`](Self::discard).
///
/// ```
/// use headless_core::{HandlerError, HandlerResult, Verdict};
///
/// fn handle(amount: &str) -> HandlerResult {
///     let amount: u32 = amount.parse().map_err(HandlerError::permanent)?;
///     if amount == 0 {
///         return Err(HandlerError::discard("nothing to bill"));
///     }
///     std::fs::metadata("/nowhere")?;
///     Ok(())
/// }
/// assert_eq!(handle("x").unwrap_err().verdict(), Verdict::Permanent);
/// assert_eq!(handle("0").unwrap_err().verdict(), Verdict::Discard);
/// assert_eq!(handle("1").unwrap_err().verdict(), Verdict::Retry);
/// ```
pub struct HandlerError {
    verdict: Verdict,
    source: Box<dyn StdError + Send + Sync>,
}

impl HandlerError {
    /// To be tried again.
    pub fn retry(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            verdict: Verdict::Retry,
            source: error.into(),
        }
    }

    /// To be tried again no earlier than after this time.
    pub fn retry_after(after: Duration, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            verdict: Verdict::RetryAfter(after),
            source: error.into(),
        }
    }

    /// Not to be tried again: it becomes a dead letter.
    pub fn permanent(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            verdict: Verdict::Permanent,
            source: error.into(),
        }
    }

    /// To be dropped.
    pub fn discard(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            verdict: Verdict::Discard,
            source: reason.into(),
        }
    }

    /// What is to become of the work.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The error.
    #[must_use]
    pub fn source(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.source
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let source: Box<dyn StdError + Send + Sync> = Box::new(error);
        let verdict = source.downcast_ref::<Error>().map_or(Verdict::Retry, verdict_of);
        Self { verdict, source }
    }
}

fn verdict_of(error: &Error) -> Verdict {
    match (error.advice(), error.kind()) {
        (RetryAdvice::After(after), _) => Verdict::RetryAfter(after),
        (RetryAdvice::Never, ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::Unsupported) => {
            Verdict::Permanent
        }
        // What is lost, closed or contended now may well succeed in another attempt.
        _ => Verdict::Retry,
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        let mut cause = self.source.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.verdict)
    }
}
