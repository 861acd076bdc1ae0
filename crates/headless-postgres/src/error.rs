//! The client's errors, mapped to kinds.

use headless_abstractions::{Error, ErrorKind, RetryAdvice};
use sqlx::error::DatabaseError;

/// The provider's name.
pub(crate) const NAME: &str = "postgres";

/// Maps an error of the client. What may have happened on the server all the same says so: a broken connection tells
/// nothing of the statement that was under way.
pub(crate) fn fault(error: sqlx::Error) -> Error {
    let mapped = match &error {
        sqlx::Error::Database(database) => {
            return refused(database.as_ref()).with_provider(NAME).with_source(error);
        }
        sqlx::Error::Configuration(_) => {
            Error::invalid("the settings of the connection are refused by the client")
        }
        sqlx::Error::Io(_) => Error::new(
            ErrorKind::Unavailable,
            "the connection is broken: is the server running, and can it be reached?",
        )
        .with_outcome_unknown(),
        sqlx::Error::Tls(_) => Error::new(
            ErrorKind::Denied,
            "TLS could not be agreed: check sslmode and the certificates",
        ),
        sqlx::Error::Protocol(_) => Error::new(
            ErrorKind::Unavailable,
            "the connection broke the protocol, as one does that is closed in the middle of an answer",
        )
        .with_outcome_unknown(),
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
    };
    mapped.with_provider(NAME).with_source(error)
}

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
        "22021" | "22P05" | "22023" | "22003" | "22007" | "22008" => of(
            ErrorKind::Invalid,
            format!("the server refused a value: {}", error.message()),
        ),
        "22001" | "54000" => of(
            ErrorKind::TooLarge,
            format!("a value is over a limit of the server: {}", error.message()),
        ),
        state if state.starts_with("08") || state.starts_with("57P") => of(
            ErrorKind::Unavailable,
            format!("the server ended the connection ({})", error.message()),
        )
        .with_outcome_unknown(),
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
