//! Acknowledgements on their way. They have no answer: polled once they are written in the order of the calls, which are
//! made under the lock of the member's state, and nothing of them is left to await or to drop half-way.

use futures::FutureExt;
use lapin::options::{BasicAckOptions, BasicNackOptions};

use crate::channel::Chan;

/// A channel through which deliveries are settled.
pub(super) trait Settles: Clone {
    /// Tells the server that a delivery is done with; with `multiple`, all before it on this channel too.
    fn ack(&self, tag: u64, multiple: bool);

    /// Gives a delivery back.
    fn requeue(&self, tag: u64);
}

impl Settles for Chan {
    fn ack(&self, tag: u64, multiple: bool) {
        sent(self.basic_ack(tag, BasicAckOptions { multiple }).now_or_never());
    }

    fn requeue(&self, tag: u64) {
        let options = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        sent(self.basic_nack(tag, options).now_or_never());
    }
}

fn sent(written: Option<lapin::Result<()>>) {
    if let Some(Err(error)) = written {
        // The channel has gone, and everything on it with it: whoever waits for the answer is told.
        tracing::debug!(%error, "an acknowledgement found its channel closed");
    }
}
