//! The one error of every driver and of core.

use std::{borrow::Cow, error::Error as StdError, fmt, time::Duration};

use crate::{GroupName, TopicName};

/// What went wrong, as far as a caller needs to tell cases apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The backend cannot be reached or is refusing work for now.
    Unavailable,
    /// The backend did not answer in time.
    Timeout,
    /// The request contradicts what is stored: another partition count, a lost race, a doomed transaction.
    Conflict,
    /// What was named does not exist.
    NotFound,
    /// The request itself is wrong and never becomes right by trying again.
    Invalid,
    /// A payload or a text is over a limit; the message names the field and the limit.
    TooLarge,
    /// The backend, or this configuration of it, does not offer what was asked.
    Unsupported,
    /// The lease, and with it the right to act, is gone.
    LeaseLost,
    /// Credentials or rights do not suffice.
    Denied,
    /// The handle was closed, or the system is shutting down.
    Closed,
    /// A broken invariant: a defect of the provider or of core.
    Internal,
}

impl ErrorKind {
    /// The stable lower-case name, for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Conflict => "conflict",
            Self::NotFound => "not found",
            Self::Invalid => "invalid",
            Self::TooLarge => "too large",
            Self::Unsupported => "unsupported",
            Self::LeaseLost => "lease lost",
            Self::Denied => "denied",
            Self::Closed => "closed",
            Self::Internal => "internal",
        }
    }

    const fn default_advice(self) -> RetryAdvice {
        match self {
            Self::Unavailable | Self::Timeout => RetryAdvice::Transient,
            _ => RetryAdvice::Never,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether trying the same operation again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryAdvice {
    /// Trying again cannot help.
    Never,
    /// Trying again after the caller's own backoff may help.
    Transient,
    /// Trying again helps no earlier than after this time.
    After(Duration),
}

/// The result of every fallible operation of headless.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a driver or of core: its kind, retry advice, context and source.
///
/// `Display` is one line: operation, provider and resource where they are known, then what happened and what to do.
/// The source is not repeated in it; walk [`std::error::Error::source`] for the cause.
///
/// ```
/// use headless_abstractions::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::TooLarge, "payload is 3000000 bytes, the limit is 1048576")
///     .with_operation("send")
///     .with_provider("memory")
///     .with_resource("topic orders.placed");
/// assert_eq!(
///     error.to_string(),
///     "send on memory, topic orders.placed: payload is 3000000 bytes, the limit is 1048576",
/// );
/// assert!(!error.is_retryable());
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    advice: RetryAdvice,
    outcome_unknown: bool,
    message: Cow<'static, str>,
    operation: Option<&'static str>,
    provider: Option<&'static str>,
    resource: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind with the kind's usual retry advice: [`RetryAdvice::Transient`] for
    /// [`ErrorKind::Unavailable`] and [`ErrorKind::Timeout`], otherwise [`RetryAdvice::Never`].
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            advice: kind.default_advice(),
            outcome_unknown: false,
            message: message.into(),
            operation: None,
            provider: None,
            resource: None,
            source: None,
        }))
    }

    /// [`ErrorKind::Invalid`]: `message` names the field and the rule that it breaks.
    #[must_use]
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// [`ErrorKind::Unsupported`]: `message` names the capability and what to do instead.
    #[must_use]
    pub fn unsupported(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// [`ErrorKind::TooLarge`] for `field`, whose size is `actual` and whose limit is `limit`, both in bytes.
    #[must_use]
    pub fn too_large(field: &str, actual: usize, limit: usize) -> Self {
        Self::new(
            ErrorKind::TooLarge,
            format!("{field} is {actual} bytes, the limit is {limit}"),
        )
    }

    /// [`ErrorKind::Conflict`] for a topic that cannot be changed while these groups hold messages of it, each with how
    /// many. The first [`Self::NAMED_GROUPS`] are named. Trying again helps once they have settled them.
    #[must_use]
    pub fn undrained(topic: &TopicName, groups: &[(GroupName, u64)]) -> Self {
        let named = groups.iter().take(Self::NAMED_GROUPS);
        let mut held: Vec<String> = named.map(|(group, count)| format!("{group} {count}")).collect();
        let others = groups.len().saturating_sub(Self::NAMED_GROUPS);
        if others > 0 {
            held.push(format!("and {others} groups more"));
        }
        Self::new(
            ErrorKind::Conflict,
            format!(
                "messages of the topic wait for groups or are unsettled: {}; let their members settle them, or end a group \
                 that nobody attends to with `headless groups remove`",
                held.join(", ")
            ),
        )
        .with_advice(RetryAdvice::Transient)
        .with_resource(format!("topic {topic}"))
    }

    /// How many groups an error names at most.
    pub const NAMED_GROUPS: usize = 10;

    /// Replaces the retry advice.
    #[must_use]
    pub fn with_advice(mut self, advice: RetryAdvice) -> Self {
        self.0.advice = advice;
        self
    }

    /// Says that the operation may have happened: a commit or a confirm whose answer never came.
    #[must_use]
    pub fn with_outcome_unknown(mut self) -> Self {
        self.0.outcome_unknown = true;
        self
    }

    /// Names the operation that failed, unless one nearer to the fault has been named already.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names the provider, unless one has been named already.
    #[must_use]
    pub fn with_provider(mut self, provider: &'static str) -> Self {
        self.0.provider.get_or_insert(provider);
        self
    }

    /// Names the resource (`topic orders.placed`), unless one has been named already.
    #[must_use]
    pub fn with_resource(mut self, resource: impl Into<String>) -> Self {
        if self.0.resource.is_none() {
            self.0.resource = Some(resource.into());
        }
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn advice(&self) -> RetryAdvice {
        self.0.advice
    }

    /// Whether [`advice`](Self::advice) is anything but [`RetryAdvice::Never`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.advice != RetryAdvice::Never
    }

    /// Whether the operation may have happened all the same.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        self.0.outcome_unknown
    }

    /// The operation that failed, where known.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The provider that failed, where known.
    #[must_use]
    pub fn provider(&self) -> Option<&'static str> {
        self.0.provider
    }

    /// The resource concerned, where known.
    #[must_use]
    pub fn resource(&self) -> Option<&str> {
        self.0.resource.as_deref()
    }

    /// What happened, without the context that `Display` puts in front.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            operation,
            provider,
            resource,
            message,
            ..
        } = &*self.0;
        let mut separator = "";
        if let Some(operation) = operation {
            f.write_str(operation)?;
            separator = " on ";
        }
        if let Some(provider) = provider {
            write!(f, "{separator}{provider}")?;
            separator = ", ";
        }
        if let Some(resource) = resource {
            write!(f, "{separator}{resource}")?;
            separator = ", ";
        }
        if !separator.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug
            .field("kind", &self.0.kind)
            .field("message", &self.to_string());
        if self.0.advice != self.0.kind.default_advice() {
            debug.field("advice", &self.0.advice);
        }
        if self.0.outcome_unknown {
            debug.field("outcome_unknown", &true);
        }
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_name_a_bounded_number_of_groups_when_they_hold_a_topic() {
        let topic = TopicName::parse("orders").unwrap();
        let of = |count: usize| -> Vec<_> {
            let group = |n: usize| (GroupName::parse(&format!("g{n}")).unwrap(), n as u64 + 1);
            (0..count).map(group).collect()
        };
        let two = Error::undrained(&topic, &of(2));
        assert_eq!(two.kind(), ErrorKind::Conflict);
        assert!(two.is_retryable());
        assert!(two.to_string().starts_with("topic orders: messages"), "{two}");
        assert!(two.message().contains("g0 1, g1 2;"), "{two}");
        let many = Error::undrained(&topic, &of(Error::NAMED_GROUPS + 3));
        assert!(many.message().contains("g9 10, and 3 groups more;"), "{many}");
        assert!(!many.message().contains("g10"), "{many}");
    }

    #[test]
    fn should_print_one_line_when_context_is_partial() {
        let error = Error::new(ErrorKind::Unavailable, "connection refused");
        assert_eq!(error.to_string(), "connection refused");
        assert_eq!(
            error.with_provider("memory").to_string(),
            "memory: connection refused"
        );
    }

    #[test]
    fn should_keep_the_nearest_context_when_wrapped_twice() {
        let error = Error::invalid("x")
            .with_operation("claim")
            .with_operation("relay");
        assert_eq!(error.operation(), Some("claim"));
    }

    #[test]
    fn should_advise_a_retry_when_the_kind_is_passing() {
        assert!(Error::new(ErrorKind::Timeout, "x").is_retryable());
        assert!(!Error::new(ErrorKind::Conflict, "x").is_retryable());
        let later = RetryAdvice::After(Duration::from_secs(1));
        assert!(
            Error::new(ErrorKind::Conflict, "x")
                .with_advice(later)
                .is_retryable()
        );
    }
}
