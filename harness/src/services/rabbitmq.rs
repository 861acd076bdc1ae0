//! What a RabbitMQ says of itself.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use crate::{Unavailable, address::Address};

/// How long the server may take to say it.
const ANSWER: Duration = Duration::from_secs(10);
/// The greeting of a client that speaks AMQP 0-9-1.
const GREETING: &[u8] = b"AMQP\0\0\x09\x01";
/// The field of the server's answer, and that it is a text of four bytes' length.
const VERSION: &[u8] = b"\x07versionS";

/// The version of the RabbitMQ at this URL (without TLS): what it answers to a client's greeting, before anybody logs in.
///
/// # Errors
/// [`Unavailable::Broken`] when it does not answer so.
pub fn rabbitmq_version(url: &str) -> Result<String, Unavailable> {
    let address = Address::parse(url).map_err(Unavailable::Broken)?;
    ask(&address).map_err(|error| Unavailable::Broken(format!("rabbitmq does not say its version: {error}")))
}

fn ask(address: &Address<'_>) -> io::Result<String> {
    let mut last = io::Error::other("the host has no address");
    for place in (address.host(), address.port()).to_socket_addrs()? {
        match TcpStream::connect_timeout(&place, ANSWER) {
            Ok(server) => return greet(server),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn greet(mut server: TcpStream) -> io::Result<String> {
    server.set_read_timeout(Some(ANSWER))?;
    server.write_all(GREETING)?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let length = server.read(&mut piece)?;
        answer.extend_from_slice(piece.get(..length).unwrap_or_default());
        if let Some(version) = version(&answer) {
            return Ok(version);
        }
        if length == 0 || answer.len() > 64 * 1024 {
            return Err(io::Error::other("its answer names none"));
        }
    }
}

/// The version in as much of the answer as has come.
fn version(answer: &[u8]) -> Option<String> {
    let at = answer.windows(VERSION.len()).position(|field| field == VERSION)? + VERSION.len();
    let (length, text) = answer.get(at..)?.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    String::from_utf8(text.get(..length)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_find_the_version_when_all_of_it_has_come() {
        let answer = b"..\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x063.10.8..";
        assert_eq!(version(answer).as_deref(), Some("3.10.8"));
        assert_eq!(version(&answer[..answer.len() - 4]), None);
        assert_eq!(version(b""), None);
    }
}
