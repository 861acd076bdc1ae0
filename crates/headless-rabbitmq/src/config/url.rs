//! The settings in a URL.

use std::{str::FromStr, time::Duration};

use headless_abstractions::{Error, Result};
use url::{Host, Url};

use super::{RabbitMqConfig, Server};
use crate::Namespace;

const PORT: u16 = 5672;
const TLS_PORT: u16 = 5671;
/// What a RabbitMQ that was just installed lets in, from its own machine.
const GUEST: &str = "guest";

/// The settings at this URL. No error shows more of it than the name of a parameter.
pub(super) fn read(text: &str) -> Result<RabbitMqConfig> {
    let url = Url::parse(text).map_err(|error| {
        Error::invalid(
            "this is no URL (amqp://user:password@host:port/vhost): in a password write % as %25, / as %2F, ? as %3F \
             and # as %23",
        )
        .with_source(error)
    })?;
    let is_tls = match url.scheme() {
        "amqp" => false,
        "amqps" => true,
        _ => return Err(Error::invalid("the URL must begin with amqp:// or amqps://")),
    };
    if !url.has_authority() {
        return Err(Error::invalid("the URL must begin with amqp:// or amqps://"));
    }
    // Then the password was not encoded, and what was read as the host and the virtual host is a piece of it.
    if url.fragment().is_some() || url.path().contains('@') {
        return Err(Error::invalid(
            "the URL has a # or an @ behind its host: in a password write / as %2F, ? as %3F and # as %23",
        ));
    }
    let host = match url.host() {
        None => "localhost".to_owned(),
        Some(Host::Domain("")) => "localhost".to_owned(),
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
    };
    let user = Some(url.username()).filter(|user| !user.is_empty());
    let vhost = url.path().strip_prefix('/').filter(|vhost| !vhost.is_empty());
    let mut config = RabbitMqConfig::at(Server {
        is_tls,
        host,
        port: url.port().unwrap_or(if is_tls { TLS_PORT } else { PORT }),
        vhost: vhost.map_or(Ok("/".to_owned()), |vhost| decode("virtual host", vhost))?,
        user: user.map_or(Ok(GUEST.to_owned()), |user| decode("user", user))?,
        password: url
            .password()
            .map_or(Ok(GUEST.to_owned()), |password| decode("password", password))?,
        has_login: user.is_some() || url.password().is_some(),
    });

    let mut seen: Vec<String> = Vec::new();
    for (name, value) in url.query_pairs() {
        if seen.iter().any(|other| *other == name) {
            return Err(Error::invalid(format!("parameter {name} is in the URL twice")));
        }
        set(&mut config, &name, &value)?;
        seen.push(name.into_owned());
    }
    config.validate()?;
    Ok(config)
}

fn set(config: &mut RabbitMqConfig, name: &str, value: &str) -> Result<()> {
    let bad = |error: Error| {
        Error::invalid(format!("parameter {name} of the URL: {}", error.message())).with_source(error)
    };
    match name {
        "namespace" => config.namespace = Namespace::parse(value).map_err(bad)?,
        "heartbeat" => config.heartbeat = duration(value).map_err(bad)?,
        "connect_timeout" => config.connect_timeout = duration(value).map_err(bad)?,
        "call_timeout" => config.call_timeout = duration(value).map_err(bad)?,
        "consumer_timeout" => config.consumer_timeout = duration(value).map_err(bad)?,
        "max_payload" => config.max_payload = number(value).map_err(bad)?,
        "publish_window" => config.publish_window = number(value).map_err(bad)?,
        "publish_channels" => config.publish_channels = number(value).map_err(bad)?,
        "delivery_limit" => config.delivery_limit = number(value).map_err(bad)?,
        "ca_file" => config.ca_file = Some(value.into()),
        "cert_file" => config.cert_file = Some(value.into()),
        "key_file" => config.key_file = Some(value.into()),
        _ => return Err(unknown(name)),
    }
    Ok(())
}

/// An error that names the parameter, unless it may be a piece of a password that was not encoded.
fn unknown(name: &str) -> Error {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !name.is_empty() && name.chars().all(is_name) {
        Error::invalid(format!(
            "parameter {name} of the URL is not known: see docs/providers/rabbitmq.md for those that are"
        ))
    } else {
        Error::invalid("the URL has a parameter that is not known: in a password write ? as %3F")
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

/// A part of the URL without its percent signs.
fn decode(what: &str, text: &str) -> Result<String> {
    let bad = || {
        Error::invalid(format!(
            "the {what} of the URL has a % that is not written as %25, or is not UTF-8"
        ))
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let digits = after
                .get(..2)
                .and_then(|digits| str::from_utf8(digits).ok())
                .ok_or_else(bad)?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(bad());
            }
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_not| bad())?);
            rest = after.get(2..).unwrap_or_default();
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    let text = String::from_utf8(bytes).map_err(|_not| bad())?;
    if text.contains('\0') {
        return Err(Error::invalid(format!("the {what} of the URL has a NUL byte")));
    }
    if text.len() > 255 {
        return Err(Error::too_large(what, text.len(), 255));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
