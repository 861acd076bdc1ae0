//! The version of a server: what it answers to a client's greeting (AMQP 0-9-1, section 4.2.2), which the client library
//! keeps to itself.

use std::io;

use headless_abstractions::{Check, Finding};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::RabbitMqConfig;

/// The first version that has all that the provider needs: quorum queues whose dead letters are kept at least once.
const LEAST: (u32, u32) = (3, 10);
/// The greeting of a client that speaks AMQP 0-9-1.
const GREETING: &[u8] = b"AMQP\0\0\x09\x01";
/// The field of the server's answer, and that it is a text of four bytes' length.
const FIELD: &[u8] = b"\x07versionS";
/// The longest version that is taken for one.
const LONGEST_VERSION: usize = 64;
/// The longest answer that is looked through.
const LONGEST: usize = 64 * 1024;

pub(super) async fn examine(config: &RabbitMqConfig) -> Finding {
    if config.server.is_tls {
        return Finding::unknown(
            Check::Version,
            "not told over TLS: `rabbitmqctl version` on the server says it",
        );
    }
    match timeout(config.connect_timeout, ask(config)).await {
        Ok(Ok(version)) => judge(&version),
        Ok(Err(error)) => Finding::unknown(Check::Version, format!("not told: {error}")),
        Err(_elapsed) => Finding::unknown(Check::Version, "not told within connect_timeout"),
    }
}

async fn ask(config: &RabbitMqConfig) -> io::Result<String> {
    let mut server = TcpStream::connect((&*config.server.host, config.server.port)).await?;
    server.write_all(GREETING).await?;
    let mut answer = Vec::new();
    loop {
        let length = server.read_buf(&mut answer).await?;
        if let Some(version) = version(&answer) {
            return Ok(version);
        }
        if length == 0 || answer.len() > LONGEST {
            return Err(io::Error::other("the server's answer names none"));
        }
    }
}

/// The version in as much of the answer as has come.
fn version(answer: &[u8]) -> Option<String> {
    let at = answer.windows(FIELD.len()).position(|field| field == FIELD)? + FIELD.len();
    let (length, text) = answer.get(at..)?.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length))
        .ok()
        .filter(|length| *length <= LONGEST_VERSION)?;
    String::from_utf8(text.get(..length)?.to_vec()).ok()
}

fn judge(version: &str) -> Finding {
    let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
    let found = format!("RabbitMQ {version}");
    match parts.next().zip(parts.next()) {
        None => Finding::unknown(
            Check::Version,
            format!("{found}, which is no version of RabbitMQ's"),
        ),
        Some(version) if version >= LEAST => Finding::good(Check::Version, found),
        Some(_) => Finding::bad(
            Check::Version,
            found,
            format!("use RabbitMQ {}.{} or newer", LEAST.0, LEAST.1),
        ),
    }
}

#[cfg(test)]
mod tests {
    use headless_abstractions::Condition;

    use super::*;

    #[test]
    fn should_find_the_version_when_all_of_it_has_come() {
        let answer = b"..\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x063.10.8..";
        assert_eq!(version(answer).as_deref(), Some("3.10.8"));
        assert_eq!(version(&answer[..answer.len() - 4]), None);
        assert_eq!(version(b""), None);
    }

    #[test]
    fn should_judge_a_version_by_its_numbers() {
        for (version, condition) in [
            ("3.9.27", Condition::Bad),
            ("3.10.0", Condition::Good),
            ("3.13.1+rc.2", Condition::Good),
            ("4.0.5", Condition::Good),
            ("next", Condition::Unknown),
        ] {
            assert_eq!(judge(version).condition, condition, "{version}");
        }
    }
}
