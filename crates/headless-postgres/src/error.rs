//! The client's errors, mapped to kinds.

use std::{fmt, io};

use headless_abstractions::{Error, ErrorKind, RetryAdvice};
use sqlx::error::DatabaseError;

/// The provider's name.
pub(crate) const NAME: &str = "postgres";

/// Maps an error of a call. What may have happened on the server all the same says so: a broken connection tells nothing
/// of the statement that was under way.
pub(crate) fn fault(error: sqlx::Error) -> Error {
    let is_unknown = leaves_open(&error);
    let mapped = with_cause(mapped(&error), error);
    if is_unknown {
        mapped.with_outcome_unknown()
    } else {
        mapped
    }
}

/// Maps an error of connecting for the first time: nothing was asked of the server yet, so nothing can have happened. Who
/// is not let in is told so.
pub(crate) fn no_first_connection(error: sqlx::Error) -> Error {
    let mapped = match &error {
        sqlx::Error::Io(io) if is_of_tls(io) => no_tls(ErrorKind::Denied),
        sqlx::Error::Io(_) => Error::new(
            ErrorKind::Unavailable,
            "no connection could be made: is the server running, and can it be reached?",
        ),
        error => mapped(error),
    };
    with_cause(mapped, error)
}

/// As [`no_first_connection`], of a handle that was connected before. A server that lets us in no more is away, and
/// nothing of what was to be done there is refused: it waits until somebody has mended that.
pub(crate) fn no_connection(error: sqlx::Error) -> Error {
    let mapped = match &error {
        sqlx::Error::Io(io) if is_of_tls(io) => no_tls(ErrorKind::Unavailable),
        sqlx::Error::Io(_) => return no_first_connection(error),
        error => {
            let mapped = mapped(error);
            match mapped.kind() {
                ErrorKind::Denied => Error::new(ErrorKind::Unavailable, mapped.message().to_owned()),
                _ => mapped,
            }
        }
    };
    with_cause(mapped, error)
}

/// Whether a statement that failed so may have had its effect.
fn leaves_open(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|state| ends_connection(&state)),
        _ => false,
    }
}

fn ends_connection(state: &str) -> bool {
    state.starts_with("08") || state.starts_with("57P")
}

fn mapped(error: &sqlx::Error) -> Error {
    match error {
        sqlx::Error::Database(database) => refused(database.as_ref()),
        sqlx::Error::Configuration(_) => {
            Error::invalid("the settings of the connection are refused by the client")
        }
        sqlx::Error::Io(_) => Error::new(
            ErrorKind::Unavailable,
            "the connection is broken: is the server running, and can it be reached?",
        ),
        sqlx::Error::Tls(_) => no_tls(ErrorKind::Denied),
        sqlx::Error::Protocol(_) => Error::new(
            ErrorKind::Unavailable,
            "the connection broke the protocol, as one does that is closed in the middle of an answer",
        ),
        sqlx::Error::PoolTimedOut => Error::new(
            ErrorKind::Unavailable,
            "no connection came free in time: raise max_connections, or end transactions sooner",
        ),
        sqlx::Error::PoolClosed => Error::new(ErrorKind::Closed, "this handle was closed"),
        sqlx::Error::WorkerCrashed => Error::new(ErrorKind::Unavailable, "the client's worker has died"),
        sqlx::Error::BeginFailed => Error::new(ErrorKind::Unavailable, "the transaction could not be begun"),
        sqlx::Error::RowNotFound => Error::new(
            ErrorKind::Internal,
            "the server returned no row where there is always one",
        ),
        _ => Error::new(
            ErrorKind::Internal,
            "the server's answer is not what was asked for",
        ),
    }
}

/// As rustls says, through the connection, that it does not trust the other side, or that this side is not trusted.
fn is_of_tls(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

fn no_tls(kind: ErrorKind) -> Error {
    Error::new(
        kind,
        "TLS could not be agreed: check sslmode, the host's name and the certificates",
    )
}

/// With what the client's error stands for as the source: its own text repeats that, and so would every chain.
fn with_cause(mapped: Error, error: sqlx::Error) -> Error {
    let mapped = mapped.with_provider(NAME);
    match error {
        sqlx::Error::Io(cause) => mapped.with_source(cause),
        sqlx::Error::Configuration(cause)
        | sqlx::Error::Tls(cause)
        | sqlx::Error::Encode(cause)
        | sqlx::Error::Decode(cause) => mapped.with_source(cause),
        sqlx::Error::Database(answer) => {
            let is_said = mapped.message().contains(answer.message());
            mapped.with_source(Answer { answer, is_said })
        }
        error => mapped.with_source(error),
    }
}

/// What the server answered, as a source: what the error above has said of it is left out.
#[derive(Debug)]
struct Answer {
    answer: Box<dyn DatabaseError>,
    is_said: bool,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.answer.code().unwrap_or_default();
        if self.is_said {
            return write!(f, "SQLSTATE {state}");
        }
        write!(f, "{} (SQLSTATE {state})", self.answer.message())
    }
}

impl std::error::Error for Answer {}

/// Maps what the server refused, by its SQLSTATE (PostgreSQL manual, appendix A).
fn refused(error: &dyn DatabaseError) -> Error {
    let state = error.code().unwrap_or_default().into_owned();
    let of = |kind, advice: String| Error::new(kind, advice);
    match state.as_str() {
        "28P01" | "28000" => of(
            ErrorKind::Denied,
            "the server refused user or password: correct the URL".to_owned(),
        ),
        "42501" => of(
            ErrorKind::Denied,
            format!(
                "a right is missing ({}): grant it to the user of the URL",
                error.message()
            ),
        ),
        "3D000" => of(
            ErrorKind::NotFound,
            format!("{}: create it, or correct the URL", error.message()),
        ),
        "3F000" | "42P01" | "42883" => of(
            ErrorKind::NotFound,
            format!(
                "{}: run `headless migrate`, or correct the schema's name",
                error.message()
            ),
        ),
        "25006" => of(
            ErrorKind::Unavailable,
            "the database is read-only: it is in recovery, or this is no longer the primary".to_owned(),
        ),
        // Nothing of a deadlock's or a serialisation's victim happened: the caller may try the whole again.
        "40001" | "40P01" => of(
            ErrorKind::Conflict,
            format!(
                "the transaction lost against another ({}): run it again",
                error.message()
            ),
        )
        .with_advice(RetryAdvice::Transient),
        "55P03" => of(
            ErrorKind::Timeout,
            "a row was locked by another transaction for longer than lock_timeout".to_owned(),
        ),
        "57014" => of(
            ErrorKind::Timeout,
            format!("the server cancelled the statement ({})", error.message()),
        ),
        "25P02" => of(
            ErrorKind::Conflict,
            "the transaction is doomed by an earlier error: roll it back".to_owned(),
        ),
        // The whole of it was rolled back. Also when a process comes back from a long pause.
        "25P03" => of(
            ErrorKind::Unavailable,
            "the server ended the transaction, which had nothing to do for idle_in_transaction_timeout: begin it again"
                .to_owned(),
        ),
        "25001" => of(
            ErrorKind::Invalid,
            format!("{}: begin the transaction so", error.message()),
        ),
        "22021" | "22P05" | "22023" | "22003" | "22007" | "22008" => of(
            ErrorKind::Invalid,
            format!("the server refused a value: {}", error.message()),
        ),
        "22001" | "54000" => of(
            ErrorKind::TooLarge,
            format!("a value is over a limit of the server: {}", error.message()),
        ),
        state if ends_connection(state) => of(
            ErrorKind::Unavailable,
            format!("the server ended the connection ({})", error.message()),
        ),
        state if state.starts_with("53") || state.starts_with("58") => of(
            ErrorKind::Unavailable,
            format!("the server lacks a resource: {}", error.message()),
        ),
        state if state.starts_with("23") => of(ErrorKind::Conflict, error.message().to_owned()),
        _ => of(
            ErrorKind::Internal,
            format!("the server answered {state}: {}", error.message()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    /// An error and its sources, as a command prints them.
    fn chain(error: &Error) -> String {
        let (mut text, mut source) = (error.to_string(), error.source());
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }

    fn io_error() -> sqlx::Error {
        sqlx::Error::Io(io::Error::other("Connection refused (os error 111)"))
    }

    #[test]
    fn should_say_the_cause_once_when_the_connection_fails() {
        for error in [no_connection(io_error()), fault(io_error())] {
            let text = chain(&error);
            assert_eq!(text.matches("Connection refused").count(), 1, "{text}");
            assert!(error.is_retryable());
        }
    }

    #[test]
    fn should_refuse_to_begin_and_wait_later_when_the_other_side_is_not_trusted() {
        let untrusted = || {
            sqlx::Error::Io(io::Error::new(
                io::ErrorKind::InvalidData,
                "invalid peer certificate",
            ))
        };
        let first = no_first_connection(untrusted());
        assert_eq!(first.kind(), ErrorKind::Denied);
        assert!(!first.is_retryable(), "{first}");
        // A relay would take it for the message's own fault otherwise, and bury what waits.
        let later = no_connection(untrusted());
        assert_eq!(later.kind(), ErrorKind::Unavailable);
        assert!(
            later.is_retryable() && later.to_string().contains("TLS"),
            "{later}"
        );
        assert!(!later.is_outcome_unknown());
    }

    #[test]
    fn should_know_the_outcome_when_nothing_was_asked() {
        assert!(!no_connection(io_error()).is_outcome_unknown());
        assert!(!no_connection(sqlx::Error::Protocol("eof".to_owned())).is_outcome_unknown());
        assert!(fault(io_error()).is_outcome_unknown());
        assert!(fault(sqlx::Error::Protocol("eof".to_owned())).is_outcome_unknown());
    }
}
