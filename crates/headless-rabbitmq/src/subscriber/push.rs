//! Acknowledgements on their way. They have no answer: polled once they are written in the order of the calls, which are
//! made under the lock of the member's state, and nothing of them is left to await or to drop half-way.

use futures::FutureExt;
use lapin::options::{BasicAckOptions, BasicNackOptions};

use crate::channel::Chan;

/// Tells the server that a delivery is done with; with `multiple`, all before it on this channel too.
pub(super) fn ack(channel: &Chan, tag: u64, multiple: bool) {
    sent(
        channel
            .basic_ack(tag, BasicAckOptions { multiple })
            .now_or_never(),
    );
}

/// Gives a delivery back.
pub(super) fn requeue(channel: &Chan, tag: u64) {
    let options = BasicNackOptions {
        multiple: false,
        requeue: true,
    };
    sent(channel.basic_nack(tag, options).now_or_never());
}

fn sent(written: Option<lapin::Result<()>>) {
    if let Some(Err(error)) = written {
        // The channel has gone, and everything on it with it: whoever waits for the answer is told.
        tracing::debug!(%error, "an acknowledgement found its channel closed");
    }
}
