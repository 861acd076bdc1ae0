//! Who sent it: GitHub signs each body with a secret that it shares with us.

use std::{error::Error, fmt, str::FromStr};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A shorter one could be guessed.
const SHORTEST: usize = 16;

/// The secret of a webhook. It is never printed.
#[derive(Clone)]
pub(crate) struct Secret(Box<[u8]>);

impl Secret {
    /// Whether `signature`, the header `X-Hub-Signature-256`, is this body's. Takes the same time wherever it is wrong.
    pub(crate) fn signed(&self, body: &[u8], signature: &str) -> bool {
        let Some(signature) = signature
            .strip_prefix("sha256=")
            .and_then(|digits| hex::decode(digits).ok())
        else {
            return false;
        };
        // A key of any length is taken.
        Hmac::<Sha256>::new_from_slice(&self.0)
            .is_ok_and(|mac| mac.chain_update(body).verify_slice(&signature).is_ok())
    }
}

impl FromStr for Secret {
    type Err = TooShort;

    fn from_str(text: &str) -> Result<Self, TooShort> {
        if text.len() < SHORTEST {
            return Err(TooShort(text.len()));
        }
        Ok(Self(text.as_bytes().into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The secret has only so many bytes.
#[derive(Debug)]
pub(crate) struct TooShort(usize);

impl fmt::Display for TooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the secret has {} bytes, the least is {SHORTEST}", self.0)
    }
}

impl Error for TooShort {}

#[cfg(test)]
mod tests {
    use super::*;

    /// From GitHub's "Validating webhook deliveries".
    const SECRET: &str = "It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn should_know_the_signature_when_it_is_the_one_that_github_documents() {
        let secret: Secret = SECRET.parse().unwrap();
        assert!(secret.signed(BODY, SIGNATURE));
        assert!(secret.signed(BODY, &SIGNATURE.replace("757107ea", "757107EA")));
    }

    #[test]
    fn should_refuse_the_signature_when_anything_of_it_is_wrong() {
        let secret: Secret = SECRET.parse().unwrap();
        let other: Secret = "It's a Secret to Nobody!!!".parse().unwrap();
        assert!(!other.signed(BODY, SIGNATURE));
        assert!(!secret.signed(b"Hello, World?", SIGNATURE));
        let digits = &SIGNATURE["sha256=".len()..];
        for wrong in [
            "",
            "sha256=",
            digits,
            &format!("sha1={digits}"),
            &SIGNATURE[..70],
            &format!("{SIGNATURE}00"),
            "sha256=zz",
        ] {
            assert!(!secret.signed(BODY, wrong), "{wrong}");
        }
    }

    #[test]
    fn should_say_the_limit_and_never_the_secret_when_it_is_too_short_or_printed() {
        let error = "hunter2".parse::<Secret>().unwrap_err();
        assert_eq!(error.to_string(), "the secret has 7 bytes, the least is 16");
        let secret: Secret = SECRET.parse().unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
