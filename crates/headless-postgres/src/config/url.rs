//! The settings in a URL: ours are read and taken off before the client sees it.

use std::{str::FromStr, time::Duration};

use headless_abstractions::{Error, Result};
use sqlx::postgres::PgConnectOptions;
use url::Url;

use super::{Migrate, Pooler, PostgresConfig, Wake};
use crate::{Schema, error::fault};

/// What the client knows. It would pass over anything else with a warning that shows the value.
const OF_THE_CLIENT: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

const SCHEMES: [&str; 2] = ["postgres", "postgresql"];

/// The settings at this URL. No error shows more of it than the name of a parameter.
pub(super) fn read(text: &str) -> Result<PostgresConfig> {
    let mut url = Url::parse(text).map_err(|error| {
        Error::invalid(
            "this is no URL (postgres://user:password@host:port/database): in a password write % as %25, / as %2F, \
             ? as %3F and # as %23",
        )
        .with_source(error)
    })?;
    if !SCHEMES.contains(&url.scheme()) {
        return Err(Error::invalid("the URL must begin with postgres://"));
    }
    // Then the password was not encoded, and what was read as the host and the database is a piece of it.
    if url.fragment().is_some() || url.path().contains('@') {
        return Err(Error::invalid(
            "the URL has a # or an @ behind its host: in a password write / as %2F, ? as %3F and # as %23",
        ));
    }

    let mut ours: Vec<(String, String)> = Vec::new();
    let mut clients: Vec<(String, String)> = Vec::new();
    for (name, value) in url.query_pairs() {
        let (name, value) = (name.into_owned(), value.into_owned());
        if Setting::from_str(&name).is_ok() {
            if ours.iter().any(|(other, _)| *other == name) {
                return Err(Error::invalid(format!("parameter {name} is in the URL twice")));
            }
            ours.push((name, value));
        } else if OF_THE_CLIENT.contains(&name.as_str()) || name.starts_with("options[") {
            try_alone(&name, &value)?;
            clients.push((name, value));
        } else {
            return Err(unknown(&name));
        }
    }
    url.set_query(None);
    if !clients.is_empty() {
        url.query_pairs_mut().extend_pairs(clients);
    }

    let options: PgConnectOptions = url.as_str().parse().map_err(fault)?;
    let mut config = PostgresConfig::from_options(options);
    for (name, value) in ours {
        config = Setting::from_str(&name)
            .and_then(|setting| setting.set(config, &value))
            .map_err(|error| {
                Error::invalid(format!("parameter {name} of the URL: {}", error.message())).with_source(error)
            })?;
    }
    Ok(config)
}

/// Lets the client read one parameter by itself, so that the error can name it.
fn try_alone(name: &str, value: &str) -> Result<()> {
    let url = Url::parse_with_params("postgres://localhost", [(name, value)])
        .map_err(|error| Error::invalid("the URL has a parameter that cannot be read").with_source(error))?;
    match url.as_str().parse::<PgConnectOptions>() {
        Ok(_) => Ok(()),
        // Its error repeats the value: it is left out for those that are secret.
        Err(_) if matches!(name, "password") => Err(refused(name)),
        Err(error) => Err(refused(name).with_source(error)),
    }
}

fn refused(name: &str) -> Error {
    Error::invalid(format!(
        "parameter {name} of the URL has a value that the client refuses"
    ))
}

/// An error that names the parameter, unless it may be a piece of a password that was not encoded.
fn unknown(name: &str) -> Error {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !name.is_empty() && name.chars().all(is_name) {
        Error::invalid(format!(
            "parameter {name} of the URL is not known: see docs/providers/postgres.md for those that are"
        ))
    } else {
        Error::invalid("the URL has a parameter that is not known: in a password write ? as %3F")
    }
}

/// A parameter of ours.
#[derive(Clone, Copy, Debug)]
enum Setting {
    Schema,
    MaxConnections,
    ControlConnections,
    AcquireTimeout,
    CallTimeout,
    LockTimeout,
    IdleInTransactionTimeout,
    MaxPayload,
    Migrate,
    Wake,
    Pooler,
    SegmentAge,
    SegmentMessages,
    KeepReplay,
}

impl FromStr for Setting {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "schema" => Self::Schema,
            "max_connections" => Self::MaxConnections,
            "control_connections" => Self::ControlConnections,
            "acquire_timeout" => Self::AcquireTimeout,
            "call_timeout" => Self::CallTimeout,
            "lock_timeout" => Self::LockTimeout,
            "idle_in_transaction_timeout" => Self::IdleInTransactionTimeout,
            "max_payload" => Self::MaxPayload,
            "migrate" => Self::Migrate,
            "wake" => Self::Wake,
            "pooler" => Self::Pooler,
            "segment_age" => Self::SegmentAge,
            "segment_messages" => Self::SegmentMessages,
            "keep_replay" => Self::KeepReplay,
            _ => return Err(unknown(name)),
        })
    }
}

impl Setting {
    fn set(self, mut config: PostgresConfig, value: &str) -> Result<PostgresConfig> {
        match self {
            Self::Schema => config.schema = Schema::parse(value)?,
            Self::MaxConnections => config.max_connections = number(value)?,
            Self::ControlConnections => config.control_connections = number(value)?,
            Self::AcquireTimeout => config.acquire_timeout = duration(value)?,
            Self::CallTimeout => config.call_timeout = duration(value)?,
            Self::LockTimeout => config.lock_timeout = duration(value)?,
            Self::IdleInTransactionTimeout => config.idle_in_transaction_timeout = duration(value)?,
            Self::MaxPayload => config.max_payload = number(value)?,
            Self::SegmentAge => config.segment_age = duration(value)?,
            Self::SegmentMessages => config.segment_messages = number(value)?,
            Self::KeepReplay => config.keep_replay = duration(value)?,
            Self::Migrate => {
                config.migrate = choice(value, [("auto", Migrate::Auto), ("check", Migrate::Check)])?;
            }
            Self::Wake => config.wake = choice(value, [("on", Wake::On), ("off", Wake::Off)])?,
            Self::Pooler => {
                let pooler = choice(
                    value,
                    [("none", Pooler::None), ("transaction", Pooler::Transaction)],
                )?;
                config = config.with_pooler(pooler);
            }
        }
        Ok(config)
    }
}

fn number<T: FromStr>(value: &str) -> Result<T> {
    value
        .parse()
        .map_err(|_not| Error::invalid("must be a whole number above 0"))
}

/// A number and its unit, as `250ms`.
fn duration(value: &str) -> Result<Duration> {
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = value.split_at(digits);
    let millis: Option<u64> = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" | "min" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    millis
        .zip(number.parse().ok())
        .and_then(|(unit, number): (u64, u64)| unit.checked_mul(number))
        .map(Duration::from_millis)
        .ok_or_else(|| Error::invalid("must be a number with its unit: 250ms, 10s, 5m or 1h"))
}

fn choice<T, const N: usize>(value: &str, choices: [(&str, T); N]) -> Result<T> {
    let names = choices.each_ref().map(|(name, _)| *name).join(" or ");
    choices
        .into_iter()
        .find_map(|(name, choice)| (name == value).then_some(choice))
        .ok_or_else(|| Error::invalid(format!("must be {names}")))
}

#[cfg(test)]
mod tests;
