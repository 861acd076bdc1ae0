//! Spans of time as the server's functions take and return them: whole microseconds.

use std::time::Duration;

/// The longest span that is sent: a hundred years, which no moment of the server's calendar overflows by.
const LONGEST: Duration = Duration::from_hours(100 * 366 * 24);

/// This span in microseconds, rounded up, so that nothing comes before its time.
pub(crate) fn micros(span: Duration) -> i64 {
    let span = span.min(LONGEST);
    let micros = span.as_micros() + u128::from(!span.as_nanos().is_multiple_of(1_000));
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// As many microseconds; what is negative is over.
pub(crate) fn span(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// A bound of the API as the server takes it.
pub(crate) fn count(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_stay_in_the_calendar_when_a_span_is_endless() {
        assert_eq!(span(micros(Duration::MAX)), LONGEST);
        assert_eq!(micros(Duration::from_nanos(1)), 1);
        assert_eq!(micros(Duration::from_secs(2)), 2_000_000);
        assert_eq!(span(-1), Duration::ZERO);
        assert_eq!(count(usize::MAX), i64::MAX);
    }
}
