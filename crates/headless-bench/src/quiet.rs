//! Waiting for a quiet machine: a compile on the other core makes any figure worthless.

use std::{fs, time::Duration};

/// How long one look takes.
const LOOK: Duration = Duration::from_millis(300);

/// How often to look before measuring all the same.
const LOOKS: usize = 100;

/// The share of all cores that may be busy, in percent.
const BUSY: u64 = 12;

/// Returns once the machine has been quiet for a moment, or after half a minute; then it says so. Where the machine does
/// not tell, at once.
pub(crate) async fn wait() {
    for _ in 0..LOOKS {
        let Some(before) = times() else { return };
        tokio::time::sleep(LOOK).await;
        let Some(after) = times() else { return };
        let all = after.all.saturating_sub(before.all).max(1);
        let idle = after.idle.saturating_sub(before.idle);
        if 100 * (all.saturating_sub(idle)) / all <= BUSY {
            return;
        }
    }
    say("the machine does not become quiet: this round is worth little");
}

#[expect(clippy::print_stderr, reason = "what the reader of a figure must know")]
fn say(text: &str) {
    eprintln!("{text}");
}

struct Times {
    all: u64,
    idle: u64,
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait … in ticks (proc(5)).
fn times() -> Option<Times> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<u64> = stat
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        .map_while(|tick| tick.parse().ok())
        .collect();
    Some(Times {
        all: ticks.iter().sum(),
        idle: ticks.get(3)? + ticks.get(4)?,
    })
}
