//! Values as a configuration writes them.

use std::{num::NonZeroUsize, time::Duration};

use headless_core::Backoff;

use crate::Preset;

/// A value as it was written, in a text or in a variable. It may be a secret: it has no `Debug`.
#[derive(Clone)]
pub(crate) enum Written {
    /// A string of TOML.
    Text(String),
    /// A number of TOML, in its digits.
    Number(String),
    /// A boolean of TOML.
    Boolean(bool),
    /// A table of TOML with nothing in it.
    Empty,
    /// What no setting is: the name of its kind.
    Other(&'static str),
    /// A variable, which has no kinds.
    Variable(String),
}

impl Written {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Number(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Empty => "a table",
            Self::Other(kind) => kind,
            Self::Variable(_) => "text",
        }
    }

    /// Nothing, of a table that may have keys.
    pub(crate) fn empty(&self) -> Result<(), String> {
        match self {
            Self::Empty => Ok(()),
            _ => Err(format!("is {}, it must be a table", self.kind())),
        }
    }

    /// What a string or a variable holds.
    pub(crate) fn text(&self) -> Result<&str, String> {
        match self {
            Self::Text(text) | Self::Variable(text) => Ok(text),
            _ => Err(format!("is {}, it must be a string", self.kind())),
        }
    }

    fn number<T: std::str::FromStr>(&self, most: impl std::fmt::Display) -> Result<T, String> {
        match self {
            Self::Number(text) | Self::Variable(text) => text
                .parse()
                .map_err(|_| format!("is {text:?}, it must be a whole number from 0 to {most}")),
            _ => Err(format!("is {}, it must be a number", self.kind())),
        }
    }
}

/// A value that a configuration can set. The error goes on from the setting's name.
pub(crate) trait Read: Sized {
    fn read(written: &Written) -> Result<Self, String>;
}

impl Read for bool {
    fn read(written: &Written) -> Result<Self, String> {
        match written {
            Written::Boolean(value) => Ok(*value),
            Written::Variable(text) if text == "true" => Ok(true),
            Written::Variable(text) if text == "false" => Ok(false),
            Written::Variable(text) => Err(format!("is {text:?}, it must be true or false")),
            _ => Err(format!("is {}, it must be true or false", written.kind())),
        }
    }
}

impl Read for u16 {
    fn read(written: &Written) -> Result<Self, String> {
        written.number(Self::MAX)
    }
}

impl Read for u32 {
    fn read(written: &Written) -> Result<Self, String> {
        written.number(Self::MAX)
    }
}

impl Read for usize {
    fn read(written: &Written) -> Result<Self, String> {
        written.number(Self::MAX)
    }
}

impl Read for NonZeroUsize {
    fn read(written: &Written) -> Result<Self, String> {
        Self::new(usize::read(written)?).ok_or_else(|| "is 0, the least is 1".to_owned())
    }
}

impl Read for String {
    fn read(written: &Written) -> Result<Self, String> {
        written.text().map(ToOwned::to_owned)
    }
}

impl Read for Duration {
    fn read(written: &Written) -> Result<Self, String> {
        match written {
            Written::Text(text) | Written::Variable(text) => {
                duration(text).map_err(|error| format!("is {text:?} ({error}), write it as \"30 s\""))
            }
            _ => Err(format!(
                "is {}, it must be a time with its unit, as \"30 s\"",
                written.kind()
            )),
        }
    }
}

impl Read for Backoff {
    fn read(written: &Written) -> Result<Self, String> {
        const FORM: &str = "two times, as \"1 s to 1 min\"";
        let (Written::Text(text) | Written::Variable(text)) = written else {
            return Err(format!("is {}, it must be {FORM}", written.kind()));
        };
        let wrong = |why: &str| format!("is {text:?} ({why}), it must be {FORM}");
        let (base, cap) = text
            .split_once(" to ")
            .ok_or_else(|| wrong("there is no \"to\""))?;
        let base = duration(base).map_err(|error| wrong(&error))?;
        let cap = duration(cap).map_err(|error| wrong(&error))?;
        if base > cap {
            return Err(wrong("the first is longer than the second"));
        }
        Ok(Self::exponential(base, cap))
    }
}

impl Read for Preset {
    fn read(written: &Written) -> Result<Self, String> {
        match written.text()? {
            "production" => Ok(Self::Production),
            "development" => Ok(Self::Development),
            other => Err(format!(
                "is {other:?}, it must be \"production\" or \"development\""
            )),
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::show::Show;

    fn text(text: &str) -> Written {
        Written::Text(text.to_owned())
    }

    #[test]
    fn should_read_back_what_is_shown_when_it_is_a_time() {
        for shown in ["0 s", "1 ns", "7 µs", "1500 ms", "90 s", "5 min", "2 h", "7 d"] {
            let read = Duration::read(&text(shown)).unwrap();
            assert_eq!(read.show(), shown);
        }
        let backoff = Backoff::read(&text("50 ms to 1 min")).unwrap();
        assert_eq!(backoff.show(), "50 ms to 1 min");
    }

    #[test]
    fn should_say_what_it_must_be_when_a_value_has_another_form() {
        let number = Written::Number("5".to_owned());
        let refused = |answer: Result<(), String>, wanted: &str| {
            let problem = answer.unwrap_err();
            assert!(problem.contains(wanted), "{problem:?} lacks {wanted:?}");
        };
        refused(
            Duration::read(&number).map(drop),
            "is a number, it must be a time with its unit",
        );
        refused(Duration::read(&text("5")).map(drop), "time unit needed");
        refused(Duration::read(&text("-5 s")).map(drop), "write it as \"30 s\"");
        refused(
            bool::read(&number).map(drop),
            "is a number, it must be true or false",
        );
        refused(
            usize::read(&text("5")).map(drop),
            "is a string, it must be a number",
        );
        let negative = Written::Number("-1".to_owned());
        refused(u32::read(&negative).map(drop), "from 0 to 4294967295");
        refused(
            String::read(&Written::Boolean(true)).map(drop),
            "is true or false, it must be a string",
        );
        refused(Backoff::read(&text("1 s")).map(drop), "there is no \"to\"");
        refused(
            Backoff::read(&text("1 min to 1 s")).map(drop),
            "the first is longer",
        );
        refused(
            Preset::read(&text("prod")).map(drop),
            "it must be \"production\" or \"development\"",
        );
    }

    #[test]
    fn should_read_plain_text_when_it_is_a_variable() {
        let variable = |text: &str| Written::Variable(text.to_owned());
        assert_eq!(usize::read(&variable("5")), Ok(5));
        assert_eq!(bool::read(&variable("false")), Ok(false));
        assert_eq!(Duration::read(&variable("1h 30m")), Ok(Duration::from_mins(90)));
        assert!(bool::read(&variable("yes")).is_err());
    }
}
