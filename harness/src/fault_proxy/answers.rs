//! What a server of PostgreSQL answers, as far as it takes to know where an answer ends.
//!
//! Source: PostgreSQL's documentation, "Frontend/Backend Protocol", sections "Message Flow" (also "Pipelining" and
//! "Asynchronous Operations") and "Message Formats". While a client copies data in, a server ignores that it ends a
//! pipeline; no COMMIT is known after that.

use bytes::Bytes;

/// The tag of a message, and its length, which counts itself and not the tag.
const HEAD: usize = 5;
/// The server has answered all that it was asked until here.
const READY: u8 = b'Z';

/// What a server has said so far on one connection. No message of it is kept.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// What has arrived of the head of a message.
    head: [u8; HEAD],
    has: usize,
    /// What is left of a message whose head has arrived.
    unread: usize,
    /// How often it has answered whether it encrypts.
    encrypts: u64,
    /// How often it has said that it is ready.
    ready: u64,
}

impl Answers {
    /// How often the server has said that it is ready, whole.
    pub(super) const fn ready(&self) -> u64 {
        self.ready
    }

    /// Takes as much as there is until the server says that it is ready, that included. `asked_to_encrypt` is how often it
    /// was asked whether it encrypts: each answer is a byte outside of any message.
    pub(super) fn hear(&mut self, bytes: &mut Bytes, asked_to_encrypt: u64) -> Bytes {
        let ready = self.ready;
        let mut at = 0;
        while at < bytes.len() && self.ready == ready {
            if self.unread > 0 {
                let part = self.unread.min(bytes.len() - at);
                self.unread -= part;
                at += part;
            } else if self.has == 0 && self.encrypts < asked_to_encrypt {
                self.encrypts += 1;
                at += 1;
                continue;
            } else {
                self.head[self.has] = bytes[at];
                self.has += 1;
                at += 1;
                if self.has < HEAD {
                    continue;
                }
                let [_, length @ ..] = self.head;
                // One that is shorter than its own length is not of this protocol; it ends here.
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.unread = length.saturating_sub(HEAD - 1);
            }
            if self.unread == 0 {
                self.has = 0;
                self.ready += u64::from(self.head[0] == READY);
            }
        }
        bytes.split_to(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTICE: &[u8] = b"A\0\0\0\x09\0\0\0\x01\0";
    const COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0Z\0\0\0\x05I";

    /// What is heard in each part, and how often it was ready then.
    fn heard(answers: &mut Answers, said: &[u8], asked_to_encrypt: u64) -> Vec<(Vec<u8>, u64)> {
        let (mut bytes, mut parts) = (Bytes::copy_from_slice(said), Vec::new());
        while !bytes.is_empty() {
            let part = answers.hear(&mut bytes, asked_to_encrypt);
            parts.push((part.to_vec(), answers.ready()));
        }
        parts
    }

    #[test]
    fn should_know_that_a_server_is_ready_when_it_tells_something_after_that() {
        let said = [COMMITTED, NOTICE].concat();
        let wanted = [(COMMITTED.to_vec(), 1), (NOTICE.to_vec(), 1)];
        assert_eq!(heard(&mut Answers::default(), &said, 0), wanted);
    }

    #[test]
    fn should_part_the_answers_when_they_come_together_and_in_pieces() {
        let said = [COMMITTED, COMMITTED].concat();
        let wanted = [(COMMITTED.to_vec(), 1), (COMMITTED.to_vec(), 2)];
        assert_eq!(heard(&mut Answers::default(), &said, 0), wanted);
        for size in 1..said.len() {
            let mut answers = Answers::default();
            let mut all = Vec::new();
            for piece in said.chunks(size) {
                all.extend(heard(&mut answers, piece, 0));
            }
            let passed: Vec<u8> = all.iter().flat_map(|(part, _)| part.clone()).collect();
            assert_eq!(
                (passed, answers.ready()),
                (said.clone(), 2),
                "in pieces of {size}"
            );
        }
    }

    #[test]
    fn should_not_take_what_rows_say_for_it() {
        let row = [b"D\0\0\0\x0a".as_slice(), b"Z\0\0\0\x05I"].concat();
        assert_eq!(heard(&mut Answers::default(), &row, 0), [(row.clone(), 0)]);
    }

    #[test]
    fn should_read_messages_when_the_server_has_said_that_it_does_not_encrypt() {
        let said = [b"N", COMMITTED].concat();
        assert_eq!(heard(&mut Answers::default(), &said, 1), [(said.clone(), 1)]);
    }
}
