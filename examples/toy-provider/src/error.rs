//! The one place where a fault of the client becomes an error of headless.

use headless_abstractions::{Error, ErrorKind};

/// The provider's name.
pub(crate) const NAME: &str = "toy";

/// What the client of the toy server can answer instead of doing its work.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The connection is gone.
    Cut,
    /// The handle was closed.
    Closed,
}

// page: fault
/// Maps a fault to its kind. Both are noticed before the server has done anything, so that no outcome is unknown.
pub(crate) fn fault(fault: Fault, operation: &'static str) -> Error {
    match fault {
        Fault::Cut => Error::new(
            ErrorKind::Unavailable,
            "the connection is cut; connect another handle",
        ),
        Fault::Closed => Error::new(ErrorKind::Closed, "this handle was closed"),
    }
    .with_operation(operation)
    .with_provider(NAME)
}
// page: end
