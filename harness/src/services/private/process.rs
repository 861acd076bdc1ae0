//! Processes that are not ours to hold: signals, what `/proc` says of them, and waiting for what they do.

use std::{
    fs, io, thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How often something is looked at.
const STEP: Duration = Duration::from_millis(10);

/// Looks until there is something, at most for `bound`. Blocks the thread.
#[expect(
    clippy::disallowed_methods,
    reason = "servers run in the machine's time, whatever a test makes of its own"
)]
pub(super) fn wait_until<T>(
    bound: Duration,
    what: &str,
    mut look: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if began.elapsed() >= bound {
            let what = format!("{what}: not within {bound:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        thread::sleep(STEP);
    }
}

/// Sends a signal. A process that is gone is no error.
pub(super) fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other(format!("{pid} is not a process")))?;
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A process and all that it started, itself first.
pub(super) fn family(first: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok())
            && let Some((_, parent)) = stat(pid)
        {
            parents.push((pid, parent));
        }
    }
    let mut family = vec![first];
    let mut next = 0;
    while let Some(&member) = family.get(next) {
        family.extend(
            parents
                .iter()
                .filter(|(_, parent)| *parent == member)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    Ok(family)
}

/// Whether a process stands still, by a signal; `None` once it is gone.
pub(super) fn is_stopped(pid: u32) -> Option<bool> {
    match stat(pid)?.0 {
        'Z' | 'X' => None,
        state => Some(state == 'T'),
    }
}

/// State and parent: the two fields after the name, which stands in brackets and may hold anything (proc(5)).
fn stat(pid: u32) -> Option<(char, u32)> {
    let line = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let line = String::from_utf8_lossy(&line);
    let mut fields = line.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::{self, Command, Stdio};

    use super::*;

    #[test]
    fn should_see_a_child_stand_still_and_go_when_it_is_told_to() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        assert!(family(process::id()).unwrap().contains(&pid));
        assert_eq!(is_stopped(pid), Some(false));
        signal(pid, Signal::STOP).unwrap();
        wait_until(Duration::from_secs(5), "it stops", || {
            Ok((is_stopped(pid) == Some(true)).then_some(()))
        })
        .unwrap();
        signal(pid, Signal::KILL).unwrap();
        child.wait().unwrap();
        assert_eq!(is_stopped(pid), None);
        signal(pid, Signal::KILL).unwrap();
    }

    #[test]
    fn should_fail_when_nothing_comes_in_time() {
        let error = wait_until(Duration::from_millis(20), "x", || Ok(None::<()>)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "x: not within 20ms");
    }
}
