//! What was found of a server.

use headless_abstractions::{Check, Condition, ErrorKind, Finding, Result};

use super::Connected;

/// What was found of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Examination {
    /// Which server: scheme, host and port.
    pub endpoint: String,
    /// Each look, in the order in which they were made.
    pub findings: Vec<Finding>,
}

impl Examination {
    pub(super) const fn new(endpoint: String, findings: Vec<Finding>) -> Self {
        Self { endpoint, findings }
    }

    /// How the worst of it is; `Unknown` when nothing was looked at.
    #[must_use]
    pub fn worst(&self) -> Condition {
        let conditions = self.findings.iter().map(|finding| finding.condition);
        conditions.max().unwrap_or(Condition::Unknown)
    }
}

/// What connecting says of a server; `Err` for a URL that cannot be read.
pub(super) fn of_connecting(connected: Result<Connected>) -> Result<Finding> {
    match connected {
        Ok(_connected) => Ok(Finding::good(Check::Reachable, "can be connected to")),
        Err(error) if error.kind() == ErrorKind::Invalid => Err(error),
        Err(error) => Ok(Finding::failed(Check::Reachable, &error)),
    }
}
