//! The trace that a message belongs to.

use crate::HeaderValue;

/// The W3C trace context of a message: `traceparent` and `tracestate` as they came.
///
/// They are text from elsewhere. [`ids`](Self::ids) reads them by the standard; what it does not understand is ignored,
/// and never an error of the message.
///
/// Source: W3C Recommendation "Trace Context", 23 November 2021.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceContext {
    /// The `traceparent` header.
    pub traceparent: HeaderValue,
    /// The `tracestate` header, if there was one.
    pub tracestate: Option<HeaderValue>,
}

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceIds {
    /// The trace: not zero.
    pub trace: u128,
    /// The span that is the parent of what follows: not zero.
    pub parent: u64,
    /// Whether its caller may have recorded it.
    pub is_sampled: bool,
}

impl TraceContext {
    /// The context with this parent and state.
    #[must_use]
    pub const fn new(traceparent: HeaderValue, tracestate: Option<HeaderValue>) -> Self {
        Self {
            traceparent,
            tracestate,
        }
    }

    /// What its `traceparent` says; `None` when it is not one by the standard, and is to be ignored.
    ///
    /// ```
    /// use headless_abstractions::{HeaderValue, TraceContext};
    ///
    /// let of = |text| TraceContext::new(HeaderValue::parse(text).unwrap(), None).ids();
    /// let ids = of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
    /// assert_eq!(ids.parent, 0xb7ad_6b71_6920_3331);
    /// assert_eq!(of("00-00000000000000000000000000000000-b7ad6b7169203331-01"), None);
    /// ```
    #[must_use]
    pub fn ids(&self) -> Option<TraceIds> {
        let mut parts = self.traceparent.as_str().split('-');
        let mut hex = |digits: usize| {
            let part = parts.next()?;
            let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            (part.len() == digits && part.bytes().all(is_hex)).then_some(part)
        };
        let version = hex(2)?;
        let trace = u128::from_str_radix(hex(32)?, 16).ok()?;
        let parent = u64::from_str_radix(hex(16)?, 16).ok()?;
        let flags = u8::from_str_radix(hex(2)?, 16).ok()?;
        // A later version may go on after another dash; the first one ends here.
        let goes_on = parts.next().is_some();
        let is_known = match version {
            "ff" => false,
            "00" => !goes_on,
            _ => true,
        };
        (is_known && trace != 0 && parent != 0).then_some(TraceIds {
            trace,
            parent,
            is_sampled: flags & 1 == 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(traceparent: &str) -> Option<TraceIds> {
        TraceContext::new(HeaderValue::parse(traceparent).unwrap(), None).ids()
    }

    #[test]
    fn should_read_what_is_a_traceparent_by_the_standard() {
        let read = ids("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        assert_eq!(read.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert!(read.is_sampled);
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        assert!(!ids(later).unwrap().is_sampled);
        assert_eq!(ids(&format!("{later}-what-the-future-will-be-like")), ids(later));
    }

    #[test]
    fn should_ignore_what_is_none() {
        for wrong in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-äf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(ids(wrong), None, "{wrong:?}");
        }
    }
}
