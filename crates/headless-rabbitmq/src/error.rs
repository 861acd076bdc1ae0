//! The client's errors, mapped to kinds.

use std::io;

use headless_abstractions::{Error, ErrorKind, RetryAdvice};
use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};

/// The provider's name.
pub(crate) const NAME: &str = "rabbitmq";

/// Maps an error of the client. What may have happened on the server all the same says so: a channel or connection that
/// went tells nothing of what was under way on it.
pub(crate) fn fault(error: lapin::Error) -> Error {
    use lapin::ErrorKind as Of;
    let mapped = match error.kind() {
        Of::ProtocolError(refusal) => refused(refusal),
        Of::IOError(io) => broken(io),
        Of::RuntimeShutdownError(_) => Error::new(
            ErrorKind::Closed,
            "the runtime that the connection lives on has ended",
        ),
        Of::MissingHeartbeatError => Error::new(
            ErrorKind::Unavailable,
            "the server gave no sign of life for too long: is it, or the network, overloaded?",
        )
        .with_outcome_unknown(),
        Of::InvalidChannel(_) | Of::InvalidChannelState(..) | Of::InvalidConnectionState(_) => Error::new(
            ErrorKind::Unavailable,
            "the connection or channel was closed in the middle of the call; call again",
        )
        .with_outcome_unknown(),
        Of::ChannelsLimitReached => Error::new(
            ErrorKind::Conflict,
            "the connection has no channel left: read fewer partitions with one handle, or raise channel_max of the \
             server",
        ),
        Of::InvalidProtocolVersion(_) => Error::new(
            ErrorKind::Unsupported,
            "the server does not speak AMQP 0-9-1: is this the port of a RabbitMQ?",
        ),
        Of::AuthProviderError(_) => {
            Error::new(ErrorKind::Denied, "the client could not present its credentials")
        }
        Of::SerialisationError(_) => Error::new(ErrorKind::Invalid, "the client cannot write this request"),
        _ => Error::new(
            ErrorKind::Internal,
            "the server's answer is not what was asked for",
        ),
    };
    mapped.with_provider(NAME).with_source(error)
}

fn broken(io: &io::Error) -> Error {
    match io.kind() {
        // As rustls says that it does not trust the other side, or that this side is not trusted.
        io::ErrorKind::InvalidData => Error::new(
            ErrorKind::Denied,
            "TLS could not be agreed: check the host's name, ca_file, cert_file and the server's certificate",
        ),
        io::ErrorKind::InvalidInput => {
            Error::invalid("the client refuses host, port or certificates of the URL")
        }
        _ => Error::new(
            ErrorKind::Unavailable,
            "the connection is broken: is the server running, and can it be reached?",
        )
        .with_outcome_unknown(),
    }
}

/// Maps what the server refused, by its reply code (AMQP 0-9-1, section 1.2, as RabbitMQ uses them).
fn refused(error: &AMQPError) -> Error {
    use AMQPErrorKind::{Hard, Soft};
    let said = error.get_message();
    let of = |kind, advice: String| Error::new(kind, advice);
    match error.kind() {
        Soft(AMQPSoftError::ACCESSREFUSED) | Hard(AMQPHardError::NOTALLOWED) => of(
            ErrorKind::Denied,
            format!("the server refused user, password, virtual host or a right: {said}"),
        ),
        // It says "not found" of both. What is down is there, with all that it holds.
        Soft(AMQPSoftError::NOTFOUND) if said.as_str().contains("down or inaccessible") => of(
            ErrorKind::Unavailable,
            format!("the node of a queue does not run, or the queue does not on it: {said}"),
        ),
        Soft(AMQPSoftError::NOTFOUND) => of(ErrorKind::NotFound, format!("{said}: declare it again")),
        Soft(AMQPSoftError::RESOURCELOCKED) => of(
            ErrorKind::Conflict,
            format!("another connection has it for itself: {said}"),
        )
        .with_advice(RetryAdvice::Transient),
        Soft(AMQPSoftError::PRECONDITIONFAILED) => of(
            ErrorKind::Conflict,
            format!("what is there differs from what was asked for: {said}"),
        ),
        Soft(AMQPSoftError::CONTENTTOOLARGE) => {
            of(ErrorKind::TooLarge, format!("the server refused: {said}"))
        }
        Hard(AMQPHardError::CONNECTIONFORCED) => of(
            ErrorKind::Unavailable,
            format!("the server ended the connection: {said}"),
        )
        .with_outcome_unknown(),
        Hard(AMQPHardError::RESOURCEERROR) => of(
            ErrorKind::Unavailable,
            format!("the server lacks a resource: {said}"),
        )
        .with_outcome_unknown(),
        Hard(AMQPHardError::NOTIMPLEMENTED) => of(
            ErrorKind::Unsupported,
            format!("the server does not know how to do this, RabbitMQ 3.10 does: {said}"),
        ),
        Hard(AMQPHardError::INTERNALERROR) => {
            of(ErrorKind::Internal, format!("the server failed: {said}")).with_outcome_unknown()
        }
        _ => of(ErrorKind::Internal, format!("the server answered: {said}")),
    }
}

pub(crate) fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Closed, "this handle was closed")
        .with_operation(operation)
        .with_provider(NAME)
}

/// A call that took too long. What it asked for may have happened.
pub(crate) fn overdue(operation: &'static str, setting: &str) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!("the server did not answer within {setting}: is it overloaded, or short of memory or disk?"),
    )
    .with_outcome_unknown()
    .with_operation(operation)
    .with_provider(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: impl Into<AMQPErrorKind>) -> Error {
        fault(lapin::ErrorKind::ProtocolError(AMQPError::new(kind.into(), "said".into())).into())
    }

    #[test]
    fn should_be_denied_when_credentials_or_certificates_are_refused() {
        assert_eq!(of(AMQPSoftError::ACCESSREFUSED).kind(), ErrorKind::Denied);
        assert_eq!(of(AMQPHardError::NOTALLOWED).kind(), ErrorKind::Denied);
        let tls = io::Error::new(io::ErrorKind::InvalidData, "invalid peer certificate");
        assert_eq!(fault(tls.into()).kind(), ErrorKind::Denied);
    }

    #[test]
    fn should_be_unavailable_with_an_unknown_outcome_when_the_connection_goes() {
        let reset = fault(io::Error::from(io::ErrorKind::ConnectionReset).into());
        for error in [
            reset,
            of(AMQPHardError::CONNECTIONFORCED),
            fault(lapin::ErrorKind::MissingHeartbeatError.into()),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.is_outcome_unknown() && error.is_retryable(), "{error}");
        }
    }

    #[test]
    fn should_be_unavailable_when_a_queue_is_there_and_down() {
        let of = |said: &str| {
            let error = AMQPError::new(AMQPSoftError::NOTFOUND.into(), said.into());
            fault(lapin::ErrorKind::ProtocolError(error).into())
        };
        // Both as RabbitMQ 3.10.8 says them.
        let down = of(
            "NOT_FOUND - home node 'rabbit@a' of durable queue 'hl!registry' in vhost '/' is down or inaccessible",
        );
        assert_eq!(down.kind(), ErrorKind::Unavailable, "{down}");
        assert!(down.is_retryable());
        let none = of("NOT_FOUND - no queue 'hl!registry' in vhost '/'");
        assert_eq!(none.kind(), ErrorKind::NotFound, "{none}");
    }

    #[test]
    fn should_be_a_timeout_with_an_unknown_outcome_when_the_answer_is_overdue() {
        let error = overdue("send", "call_timeout");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.is_outcome_unknown());
        assert!(error.to_string().contains("call_timeout"), "{error}");
    }
}
