//! What a client of PostgreSQL says, as far as it takes to know its COMMIT.
//!
//! Source: PostgreSQL's documentation, "Frontend/Backend Protocol", sections "Message Formats" and "Message Flow".

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};

use super::statement::commits;

/// Longer messages are passed on unread: no COMMIT is among them.
const LONGEST: usize = 64 * 1024;
/// The length, which counts itself and not the tag before it.
const LENGTH: usize = 4;
/// The requests that come before the startup message, in its form: for TLS and for GSSAPI.
const ENCRYPT: [u32; 2] = [80_877_103, 80_877_104];
/// A piece of what a client says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) bytes: Bytes,
    /// Of a whole message (or the end of one) by which the client commits: how often the server says that it is ready
    /// before it has answered this.
    pub(super) commits: Option<u64>,
}

/// What a client has said so far on one connection.
#[derive(Debug)]
pub(super) struct Requests {
    phase: Phase,
    /// The message that is not complete, with its head, and how much of it was passed on.
    message: BytesMut,
    passed: usize,
    /// What is left of a message that is not read.
    unread: usize,
    /// The prepared statements and the portals that commit.
    statements: BTreeSet<Vec<u8>>,
    portals: BTreeSet<Vec<u8>>,
    /// How often the server has been asked for what it answers by saying that it is ready.
    asked: u64,
    /// How often it was asked whether it encrypts.
    asked_to_encrypt: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Messages have no tag yet.
    Startup,
    Tagged,
    /// It is not for us to read: encrypted, or not this protocol.
    Opaque,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Startup,
            message: BytesMut::new(),
            passed: 0,
            unread: 0,
            statements: BTreeSet::new(),
            portals: BTreeSet::new(),
            asked: 0,
            asked_to_encrypt: 0,
        }
    }

    /// How often the client has asked whether the server encrypts, which that answers by a byte alone.
    pub(super) const fn asked_to_encrypt(&self) -> u64 {
        self.asked_to_encrypt
    }

    /// Whether there is nothing to read.
    pub(super) fn is_opaque(&self) -> bool {
        self.phase == Phase::Opaque
    }

    /// Takes what has arrived, and gives what can be passed on now, in order. With `whole` a message that has not come
    /// to its end is kept until it has.
    pub(super) fn hear(&mut self, mut bytes: Bytes, whole: bool) -> Vec<Said> {
        let mut said = Vec::new();
        while !bytes.is_empty() {
            if self.phase == Phase::Opaque {
                said.push(Said::other(bytes));
                return said;
            }
            if self.unread > 0 {
                let part = bytes.split_to(self.unread.min(bytes.len()));
                self.unread -= part.len();
                said.push(Said::other(part));
                continue;
            }
            let missing = self.missing().min(bytes.len());
            self.message.extend_from_slice(&bytes.split_to(missing));
            match self.length() {
                Some(length) if self.message.len() == length => said.push(self.heard(length)),
                Some(length) if !(self.head()..=LONGEST).contains(&length) => {
                    if self.phase == Phase::Startup || length < self.head() {
                        self.phase = Phase::Opaque;
                    } else {
                        self.unread = length - self.message.len();
                        self.ask(self.message[0]);
                    }
                    let passed = std::mem::take(&mut self.passed);
                    let fresh = self.message.split().freeze().slice(passed..);
                    said.push(Said::other(fresh));
                }
                _ => {}
            }
        }
        if !whole && self.passed < self.message.len() {
            said.push(Said::other(Bytes::copy_from_slice(&self.message[self.passed..])));
            self.passed = self.message.len();
        }
        said.retain(|said| !said.bytes.is_empty() || said.commits.is_some());
        said
    }

    /// How many bytes come before what a message says.
    fn head(&self) -> usize {
        match self.phase {
            Phase::Tagged => 1 + LENGTH,
            Phase::Startup | Phase::Opaque => LENGTH,
        }
    }

    /// How long the message is, its head included; `None` while the head is not complete.
    fn length(&self) -> Option<usize> {
        let head = self.head();
        let length: [u8; LENGTH] = self.message.get(head - LENGTH..head)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(length))
            .ok()?
            .checked_add(head - LENGTH)
    }

    fn missing(&self) -> usize {
        let until = self.length().unwrap_or_else(|| self.head());
        until.saturating_sub(self.message.len())
    }

    /// The message has come to its end.
    fn heard(&mut self, length: usize) -> Said {
        let message = self.message.split_to(length).freeze();
        let fresh = message.slice(std::mem::take(&mut self.passed)..);
        let before = self.asked;
        let commits = match self.phase {
            Phase::Tagged => {
                self.ask(message[0]);
                self.read(message[0], &message[1 + LENGTH..])
            }
            Phase::Startup | Phase::Opaque => {
                let code = message
                    .get(LENGTH..2 * LENGTH)
                    .and_then(|code| code.try_into().ok());
                if code.is_some_and(|code| ENCRYPT.contains(&u32::from_be_bytes(code))) {
                    self.asked_to_encrypt += 1;
                } else {
                    self.phase = Phase::Tagged;
                    self.asked += 1;
                }
                false
            }
        };
        Said {
            bytes: fresh,
            commits: commits.then_some(before),
        }
    }

    /// Counts what the server answers, in the end, by saying that it is ready: a query, the end of a pipeline, a function.
    fn ask(&mut self, tag: u8) {
        self.asked += u64::from(matches!(tag, b'Q' | b'S' | b'F'));
    }

    /// Whether this message commits.
    fn read(&mut self, tag: u8, body: &[u8]) -> bool {
        let mut texts = body.split(|byte| *byte == 0);
        let mut text = || texts.next().unwrap_or_default();
        match tag {
            b'Q' => commits(text()),
            b'P' => {
                let (name, statement) = (text(), text());
                keep(&mut self.statements, name, commits(statement));
                false
            }
            b'B' => {
                let (portal, statement) = (text(), text());
                let commits = self.statements.contains(statement);
                keep(&mut self.portals, portal, commits);
                false
            }
            b'E' => self.portals.contains(text()),
            _ => false,
        }
    }
}

impl Said {
    pub(super) const fn other(bytes: Bytes) -> Self {
        Self { bytes, commits: None }
    }
}

fn keep(names: &mut BTreeSet<Vec<u8>>, name: &[u8], commits: bool) {
    if commits {
        names.insert(name.to_vec());
    } else {
        names.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup(code: u32) -> Vec<u8> {
        [8_u32.to_be_bytes(), code.to_be_bytes()].concat()
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + LENGTH).unwrap().to_be_bytes();
        [&[tag][..], &length[..], body].concat()
    }

    fn began() -> Requests {
        let mut requests = Requests::new();
        let hello = [startup(ENCRYPT[0]), startup(196_608)].concat();
        requests.hear(hello.into(), true);
        assert_eq!(requests.phase, Phase::Tagged);
        requests
    }

    fn heard(requests: &mut Requests, bytes: Vec<u8>) -> Vec<bool> {
        let said = requests.hear(bytes.into(), true);
        said.iter().map(|said| said.commits.is_some()).collect()
    }

    #[test]
    fn should_know_a_commit_when_it_is_a_simple_query() {
        let mut requests = began();
        let all = [
            message(b'Q', b"select 1\0"),
            message(b'Q', b"unlisten headless; commit\0"),
            message(b'X', b""),
        ];
        assert_eq!(heard(&mut requests, all.concat()), [false, true, false]);
    }

    #[test]
    fn should_know_a_commit_when_it_was_prepared_and_bound() {
        let mut requests = began();
        let all = [
            message(b'P', b"one\0COMMIT\0\0\0"),
            message(b'P', b"two\0select 1\0\0\0"),
            message(b'B', b"\0two\0\0\0\0\0\0\0"),
            message(b'E', b"\0\0\0\0\0"),
            message(b'B', b"\0one\0\0\0\0\0\0\0"),
            message(b'E', b"\0\0\0\0\0"),
            message(b'S', b""),
        ];
        let wanted = [false, false, false, false, false, true, false];
        assert_eq!(heard(&mut requests, all.concat()), wanted);
    }

    #[test]
    fn should_keep_a_message_until_it_is_whole_when_told_so() {
        let mut requests = began();
        let commit = message(b'Q', b"COMMIT\0");
        for byte in &commit[..commit.len() - 1] {
            assert!(requests.hear(vec![*byte].into(), true).is_empty());
        }
        let said = requests.hear(vec![0].into(), true);
        assert_eq!(said.len(), 1);
        assert_eq!((&said[0].bytes[..], said[0].commits), (&commit[..], Some(1)));
    }

    #[test]
    fn should_pass_every_byte_on_once_when_it_comes_in_pieces() {
        let hello = [startup(196_608), message(b'Q', b"COMMIT\0")].concat();
        let long = message(b'Q', &vec![b'x'; 2 * LONGEST]);
        let all = [hello.clone(), long, hello[8..].to_vec()].concat();
        for (size, whole) in [
            (1, false),
            (3, true),
            (7, false),
            (1_000, true),
            (usize::MAX, false),
        ] {
            let mut requests = Requests::new();
            let (mut passed, mut commits) = (Vec::new(), 0);
            for piece in all.chunks(size.min(all.len())) {
                for said in requests.hear(Bytes::copy_from_slice(piece), whole) {
                    passed.extend_from_slice(&said.bytes);
                    commits += usize::from(said.commits.is_some());
                }
            }
            assert!(passed == all, "in pieces of {size}");
            assert_eq!(commits, 2, "in pieces of {size}");
        }
    }

    #[test]
    fn should_pass_on_unread_what_is_not_this_protocol() {
        let mut requests = Requests::new();
        let hello = [0x16, 3, 1, 2, 0, 1, 0];
        let said = requests.hear(Bytes::copy_from_slice(&hello), true);
        let passed: Vec<u8> = said.iter().flat_map(|said| said.bytes.to_vec()).collect();
        assert_eq!((&passed[..], requests.phase), (&hello[..], Phase::Opaque));
    }

    #[test]
    fn should_count_what_is_answered_before_a_commit_when_it_is_pipelined() {
        let mut requests = began();
        let all = [
            message(b'Q', b"select 1\0"),
            message(b'P', b"\0select 2\0\0\0"),
            message(b'S', b""),
            message(b'Q', &vec![b'x'; 2 * LONGEST]),
            message(b'Q', b"commit\0"),
        ];
        let said = requests.hear(all.concat().into(), true);
        let commits: Vec<u64> = said.iter().filter_map(|said| said.commits).collect();
        assert_eq!(commits, [4], "the greeting, a query, a pipeline and a long query");
    }
}
