//! Where a URL says that a server is, as far as the harness needs to know: to stand in front of it, or to say the same
//! of another port.

use std::net::SocketAddr;

/// `scheme://user:password@host:port/rest`, or `host:port` alone, in its parts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address<'a> {
    /// What comes before the host, with its signs.
    before: &'a str,
    host: &'a str,
    port: u16,
    /// What comes after the port, with its signs.
    after: &'a str,
}

impl<'a> Address<'a> {
    /// Reads a URL of one host. The error does not repeat the URL, which may hold a password.
    pub(crate) fn parse(url: &'a str) -> Result<Self, String> {
        let authority = url.find("://").map_or(0, |at| at + 3);
        let end = url[authority..]
            .find(['/', '?', '#'])
            .map_or(url.len(), |at| authority + at);
        let host = url[authority..end]
            .rfind('@')
            .map_or(authority, |at| authority + at + 1);
        let (before, place, after) = (&url[..host], &url[host..end], &url[end..]);
        let (host, port) = match place.rfind(':') {
            // The last colon of `[::1]` is a part of the address.
            Some(at) if !place.ends_with(']') => {
                let port = place[at + 1..].parse();
                (&place[..at], port.map_err(|_| "the URL's port is not a number")?)
            }
            _ => (place, usual_port(before).ok_or("the URL names no port")?),
        };
        if host.is_empty() {
            return Err("the URL names no host".to_owned());
        }
        Ok(Self {
            before,
            host,
            port,
            after,
        })
    }

    /// The host as sockets take it: an IPv6 address without its brackets.
    pub(crate) fn host(&self) -> &'a str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// The same URL of a server at another place.
    pub(crate) fn at(&self, place: SocketAddr) -> String {
        format!("{}{place}{}", self.before, self.after)
    }

    /// The user, decoded.
    pub(crate) fn user(&self) -> Option<String> {
        let (user, _) = self.login()?;
        Some(decode(user)).filter(|user| !user.is_empty())
    }

    /// The password, decoded.
    pub(crate) fn password(&self) -> Option<String> {
        self.login()?.1.map(decode)
    }

    /// The same URL of another database, or virtual host, of a server at another place.
    pub(crate) fn at_for(&self, place: SocketAddr, database: &str) -> String {
        let options = self.after.find(['?', '#']).map_or("", |at| &self.after[at..]);
        format!("{}{place}/{}{options}", self.before, encode(database))
    }

    fn login(&self) -> Option<(&'a str, Option<&'a str>)> {
        let login = self.before.strip_suffix('@')?;
        let login = login.find("://").map_or(login, |at| &login[at + 3..]);
        Some(
            login
                .split_once(':')
                .map_or((login, None), |(user, password)| (user, Some(password))),
        )
    }
}

fn usual_port(before: &str) -> Option<u16> {
    match before.split_once("://")?.0 {
        "postgres" | "postgresql" => Some(5432),
        "redis" => Some(6379),
        "amqp" => Some(5672),
        "nats" => Some(4222),
        _ => None,
    }
}

/// A text as a part of a URL: everything but letters, digits and `-._~` in percent signs (RFC 3986, section 2.1).
pub(crate) fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7);

    #[test]
    fn should_read_each_part_when_all_are_there() {
        let address = Address::parse("postgres://me:a%40b%3A%2F%25@db.local:6000/shop?x=1").unwrap();
        assert_eq!((address.host(), address.port()), ("db.local", 6000));
        assert_eq!(address.user().unwrap(), "me");
        assert_eq!(address.password().unwrap(), "a@b:/%");
        assert_eq!(
            address.at_for(PLACE, "a/b"),
            "postgres://me:a%40b%3A%2F%25@127.0.0.1:7/a%2Fb?x=1"
        );
        assert_eq!(
            address.at(PLACE),
            "postgres://me:a%40b%3A%2F%25@127.0.0.1:7/shop?x=1"
        );
    }

    #[test]
    fn should_read_what_is_there_when_parts_are_missing() {
        let address = Address::parse("nats://127.0.0.1").unwrap();
        assert_eq!((address.host(), address.port()), ("127.0.0.1", 4222));
        assert_eq!((address.user(), address.password()), (None, None));
        assert_eq!(address.at(PLACE), "nats://127.0.0.1:7");
        assert_eq!(address.at_for(PLACE, "x"), "nats://127.0.0.1:7/x");
        assert_eq!(Address::parse("127.0.0.1:9092").unwrap().at(PLACE), "127.0.0.1:7");
        let six = Address::parse("redis://[::1]/0").unwrap();
        assert_eq!((six.host(), six.port()), ("::1", 6379));
        assert_eq!(Address::parse("[::1]:9092").unwrap().port(), 9092);
    }

    #[test]
    fn should_refuse_without_repeating_the_url_when_it_has_no_place() {
        for url in [
            "127.0.0.1",
            "postgres://u:secret@h:x/db",
            "postgres:///db",
            ":80",
            "http://[::1]",
        ] {
            let error = Address::parse(url).err().unwrap();
            assert!(
                error.starts_with("the URL") && !error.contains("secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn should_come_back_when_encoded() {
        let odd = "a b@c:/%?#é'\"\\";
        assert_eq!(decode(&encode(odd)), odd);
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%zz%4"), "%zz%4");
    }
}
