//! What the settings may be.

use std::{ops::RangeInclusive, time::Duration};

use headless_abstractions::{Error, Result};

use super::{Pooler, PostgresConfig, Wake};

/// The server counts milliseconds in 32 bits.
const LONGEST: Duration = Duration::from_secs(24 * 24 * 3600);
/// The largest payload that a row may have. What is delivered is parked and buried up to this, whatever was to be the most of
/// what is published.
pub(crate) const LARGEST_PAYLOAD: usize = 256 * 1024 * 1024;
/// Not shorter than the time between two looks after the log.
const SEGMENT_AGE: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_hours(366 * 24);
/// A segment of fewer messages costs more than it holds.
const SEGMENT_MESSAGES: RangeInclusive<u32> = 1_000..=1_000_000_000;
/// How many segments may wait to be emptied: the log has eight tables, and one is written.
const SEGMENTS_KEPT: u32 = 7;

/// Refuses settings that contradict each other, and bounds that bound nothing.
pub(super) fn check(config: &PostgresConfig) -> Result<()> {
    if config.pooler == Pooler::Transaction && config.wake == Wake::On {
        return Err(Error::invalid(
            "wake=on needs a session of its own, which pooler=transaction does not give: leave wake off",
        ));
    }
    for (name, time) in [
        ("acquire_timeout", config.acquire_timeout),
        ("call_timeout", config.call_timeout),
        ("lock_timeout", config.lock_timeout),
        ("idle_in_transaction_timeout", config.idle_in_transaction_timeout),
    ] {
        if time < Duration::from_millis(1) {
            return Err(Error::invalid(format!(
                "{name} is {time:?}: it must be at least 1 ms"
            )));
        }
    }
    for (name, time) in [
        ("lock_timeout", config.lock_timeout),
        ("idle_in_transaction_timeout", config.idle_in_transaction_timeout),
    ] {
        if time > LONGEST {
            return Err(Error::invalid(format!(
                "{name} is {time:?}: the server takes 24 days at most"
            )));
        }
    }
    if config.max_payload.get() > LARGEST_PAYLOAD {
        return Err(Error::invalid(format!(
            "max_payload is {} bytes: it may be {LARGEST_PAYLOAD} at most",
            config.max_payload
        )));
    }
    check_log(config)
}

fn check_log(config: &PostgresConfig) -> Result<()> {
    let (age, keep) = (config.segment_age, config.keep_replay);
    if !SEGMENT_AGE.contains(&age) {
        return Err(Error::invalid(format!(
            "segment_age is {age:?}: it may be from 10 s to 366 days"
        )));
    }
    if !SEGMENT_MESSAGES.contains(&config.segment_messages.get()) {
        return Err(Error::invalid(format!(
            "segment_messages is {}: it may be from {} to {}",
            config.segment_messages,
            SEGMENT_MESSAGES.start(),
            SEGMENT_MESSAGES.end()
        )));
    }
    if keep > age * SEGMENTS_KEPT {
        return Err(Error::invalid(format!(
            "keep_replay is {keep:?}, and {SEGMENTS_KEPT} segments of segment_age ({age:?}) do not last so long: raise \
             segment_age to {:?} or more",
            keep / SEGMENTS_KEPT
        )));
    }
    Ok(())
}
