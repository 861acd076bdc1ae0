//! Values as people write them.

use std::time::Duration;

use headless_core::Backoff;

/// A value as people write it.
pub(super) trait Show {
    fn show(&self) -> String;
}

impl Show for bool {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Show for u32 {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Show for usize {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Show for Duration {
    /// In the largest unit that divides it.
    fn show(&self) -> String {
        let nanos = self.as_nanos();
        let units: [(&str, u128); 7] = [
            ("d", 86_400_000_000_000),
            ("h", 3_600_000_000_000),
            ("min", 60_000_000_000),
            ("s", 1_000_000_000),
            ("ms", 1_000_000),
            ("µs", 1_000),
            ("ns", 1),
        ];
        units
            .into_iter()
            .find(|(_, unit)| nanos >= *unit && nanos.is_multiple_of(*unit))
            .map_or_else(
                || "0 s".to_owned(),
                |(name, unit)| format!("{} {name}", nanos / unit),
            )
    }
}

impl Show for Backoff {
    fn show(&self) -> String {
        // The ceiling doubles with each try: by the last that is told apart it has reached the cap.
        format!("{} to {}", self.ceiling(0).show(), self.ceiling(u32::MAX).show())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_use_the_largest_unit_that_divides_when_a_duration_is_shown() {
        for (duration, shown) in [
            (Duration::ZERO, "0 s"),
            (Duration::from_millis(1_500), "1500 ms"),
            (Duration::from_secs(90), "90 s"),
            (Duration::from_mins(120), "2 h"),
            (Duration::from_hours(48), "2 d"),
            (Duration::from_nanos(1), "1 ns"),
        ] {
            assert_eq!(duration.show(), shown);
        }
    }

    #[test]
    fn should_show_first_and_longest_time_when_it_is_a_backoff() {
        let backoff = Backoff::exponential(Duration::from_millis(50), Duration::from_mins(1));
        assert_eq!(backoff.show(), "50 ms to 1 min");
    }
}
