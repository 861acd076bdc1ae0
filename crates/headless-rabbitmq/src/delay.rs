//! How long a message waits before its groups get it, and in which of their queues.
//!
//! A message says to the millisecond when it is due, and the server looks at the first one of a queue alone. So each
//! queue takes delays of about the same length: what is due early waits there for what came before it, and never longer
//! than the queue's longest delay.

use std::{fmt, time::Duration};

use headless_abstractions::{Error, Result};
use serde::{Deserialize, Serialize};

/// The longest delay: 48 days. The server counts a message's time in milliseconds, in 32 bits.
const LONGEST: Duration = Duration::from_secs(48 * 24 * 3600);
/// From one power of two to the next there are this many lengths.
const STEPS: u32 = 4;

/// A queue's longest delay, in seconds: up to 8 each number, from there on four from one power of two to the next (8, 10,
/// 12, 14, 16, 20, …). So a topic has at most 84 of them, and a delay is at most a quarter below the next one, or a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Wait(u32);

/// The delay of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delay {
    pub(crate) wait: Wait,
    /// After how many milliseconds it is due; 1 or more.
    pub(crate) millis: u32,
}

impl Delay {
    /// `None` for no time at all.
    pub(crate) fn of(time: Option<Duration>) -> Result<Option<Self>> {
        let Some(time) = time.filter(|time| !time.is_zero()) else {
            return Ok(None);
        };
        let millis = u32::try_from(time.as_nanos().div_ceil(1_000_000));
        let millis = millis.ok().filter(|_| time <= LONGEST).ok_or_else(|| {
            Error::unsupported(format!(
                "deliver_after is {time:?}: a queue delays by {LONGEST:?} (48 days) at most; publish through an outbox, \
                 which waits for longer"
            ))
        })?;
        Ok(Some(Self {
            wait: Wait::at_least(millis.div_ceil(1_000)),
            millis,
        }))
    }
}

impl Wait {
    /// The shortest one that is at least so many seconds; of at least one.
    fn at_least(seconds: u32) -> Self {
        let step = seconds
            .checked_ilog2()
            .map_or(1, |power| (1 << power) / STEPS)
            .max(1);
        Self(seconds.next_multiple_of(step))
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
impl Wait {
    /// The one with the longest name.
    pub(crate) fn longest() -> Self {
        Self::at_least(u32::try_from(LONGEST.as_secs()).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use headless_abstractions::ErrorKind;

    use super::*;

    fn of(time: Duration) -> Delay {
        Delay::of(Some(time)).unwrap().unwrap()
    }

    #[test]
    fn should_wait_in_the_next_longer_queue_when_there_is_none_of_its_length() {
        assert_eq!(of(Duration::from_millis(1)).wait, Wait(1));
        assert_eq!(of(Duration::from_millis(1_001)).wait, Wait(2));
        assert_eq!(of(Duration::from_millis(8_001)).wait, Wait(10));
        assert_eq!(of(Duration::from_secs(60)).wait, Wait(64));
        assert_eq!(of(Duration::from_secs(3_600)).wait, Wait(4_096));
        assert_eq!(of(Duration::from_secs(3_600)).millis, 3_600_000);
    }

    #[test]
    fn should_never_be_early_nor_later_than_said_when_rounded() {
        let mut waits = BTreeSet::new();
        let last = u32::try_from(LONGEST.as_secs()).unwrap();
        for seconds in (1..1_000).chain((1_000..last).step_by(97)) {
            let wait = Wait::at_least(seconds);
            assert!(
                wait.0 >= seconds && wait.0 <= seconds + seconds / 4,
                "{seconds}: {wait}"
            );
            assert_eq!(Wait::at_least(wait.0), wait);
            waits.insert(wait);
        }
        waits.insert(Wait::longest());
        assert_eq!(waits.len(), 84);
    }

    #[test]
    fn should_round_up_to_a_millisecond_when_it_is_less() {
        assert_eq!(of(Duration::from_nanos(1)).millis, 1);
        assert_eq!(of(Duration::from_micros(1_500)).millis, 2);
        assert_eq!(Delay::of(Some(Duration::ZERO)).unwrap(), None);
        assert_eq!(Delay::of(None).unwrap(), None);
    }

    #[test]
    fn should_be_refused_by_name_when_it_is_longer_than_the_longest() {
        assert_eq!(of(LONGEST).wait, Wait::longest());
        for time in [LONGEST + Duration::from_nanos(1), Duration::MAX] {
            let error = Delay::of(Some(time)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.message().contains("deliver_after"), "{error}");
            assert!(error.message().contains("48 days"), "{error}");
        }
    }
}
