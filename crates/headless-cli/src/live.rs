//! What is known of a demo as it happens: its progress, and the moment of its crash. The figures of the report are
//! counted from stored rows instead.

use std::{
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
};

use indicatif::ProgressBar;
use tokio::sync::mpsc;

use crate::progress;

/// Shared by all members of this process.
#[derive(Debug)]
pub(crate) struct Live {
    bar: ProgressBar,
    /// How many messages there are to handle before the crash; 0 when there is none to come.
    until_crash: AtomicU64,
    /// Told the number of the member that is to go.
    crash: mpsc::UnboundedSender<usize>,
}

impl Live {
    /// Of this many messages, with a crash after some of them (0 for none).
    pub(crate) fn new(total: usize, until_crash: u64) -> (Arc<Self>, mpsc::UnboundedReceiver<usize>) {
        let (crash, crashes) = mpsc::unbounded_channel();
        let live = Self {
            bar: progress::line(Some(total as u64), "handled"),
            until_crash: until_crash.into(),
            crash,
        };
        (Arc::new(live), crashes)
    }

    /// A member of this process has handled one more. Whether it is to go now.
    pub(crate) fn handled(&self, number: usize) -> bool {
        self.bar.inc(1);
        let handled = self.until_crash.fetch_sub(1, Ordering::Relaxed);
        handled == 1 && self.crash.send(number).is_ok()
    }

    /// This many are handled by now, by members that are processes.
    pub(crate) fn look(&self, handled: u64) {
        self.bar.set_position(handled);
        let crash_at = self.until_crash.load(Ordering::Relaxed);
        if crash_at > 0 && handled >= crash_at && self.crash.send(0).is_ok() {
            self.until_crash.store(0, Ordering::Relaxed);
        }
    }

    /// A member has gone.
    pub(crate) fn gone(&self) {
        self.bar.set_message("(one member was taken away)");
    }

    /// Everything is settled, after this many seconds.
    pub(crate) fn end(&self) -> f64 {
        self.bar.finish_and_clear();
        self.bar.elapsed().as_secs_f64()
    }
}
