//! A member of an application that can be taken away in the middle of its work.

use std::{convert::Infallible, future::Future, future::pending, io, process::Stdio, thread};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    runtime::Builder,
    sync::{mpsc, oneshot},
};

/// How a member ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum Ended<T> {
    /// By itself, and it says this.
    Done(T),
    /// It was taken away, as a crash would: none of its destructors were run.
    TakenAway,
}

/// Takes the member away that has it.
#[derive(Clone, Debug)]
pub struct Crash {
    told: mpsc::Sender<()>,
}

impl Crash {
    /// Stops the member's thread where it is called, for ever: nothing of the member runs again, and nothing of it is dropped.
    ///
    /// Handles of servers in memory are severed first (`Memory::sever`), as the kernel closes the sockets of a process. What
    /// the member started elsewhere than on its own thread goes on: give it an [`Environment`](crate::Environment) of
    /// [`Spawner::current`](crate::Spawner::current).
    pub fn now(&self) -> ! {
        // Full: another call was first. Closed: nobody waits for the member any more.
        let _told = self.told.try_send(());
        loop {
            thread::park();
        }
    }
}

/// Runs a member on a thread of its own, with a runtime of its own that has no other thread, until it ends or takes itself
/// away ([`Crash::now`]).
///
/// # Errors
/// When no thread or runtime can be started, and when the member panicked.
///
/// # Cancel safety
/// A future that is dropped leaves the member to itself: it runs on.
pub async fn on_thread<T, W>(work: impl FnOnce(Crash) -> W + Send + 'static) -> io::Result<Ended<T>>
where
    T: Send + 'static,
    W: Future<Output = T>,
{
    let (told, mut is_gone) = mpsc::channel(1);
    let (done, mut ended) = oneshot::channel();
    thread::Builder::new().spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        let ended = runtime.map(|runtime| runtime.block_on(work(Crash { told })));
        // Nobody may wait for it any more.
        drop(done.send(ended));
    })?;
    tokio::select! {
        biased;
        Some(()) = is_gone.recv() => Ok(Ended::TakenAway),
        ended = &mut ended => match ended {
            Ok(ended) => ended.map(Ended::Done),
            Err(_closed) => Err(io::Error::other("the member panicked")),
        },
    }
}

/// Runs a member as a process, and gives each line that it says on its standard output to `goes`, until it ends or `goes`
/// answers that it is to be taken away: then it gets SIGKILL. Ended by itself, its last line is what it says.
///
/// Its standard input stays open until `until` is ready, so that a member learns from its end when to stop.
///
/// # Errors
/// When the process cannot be started or listened to, and when it fails.
///
/// # Cancel safety
/// A future that is dropped kills the process.
pub async fn in_process(
    command: &mut Command,
    until: impl Future<Output = ()>,
    mut goes: impl FnMut(&str) -> bool,
) -> io::Result<Ended<String>> {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = pipes.kill_on_drop(true).spawn()?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("the process has no pipes"));
    };
    let closing = async move {
        until.await;
        drop(input);
        pending::<Infallible>().await
    };
    let listening = async {
        let (mut lines, mut last) = (BufReader::new(output).lines(), String::new());
        while let Some(line) = lines.next_line().await? {
            if goes(&line) {
                child.kill().await?;
                return Ok(Ended::TakenAway);
            }
            last = line;
        }
        let status = child.wait().await?;
        match status.success() {
            true => Ok(Ended::Done(last)),
            false => Err(io::Error::other(format!(
                "a member's process ended with {status}"
            ))),
        }
    };
    tokio::select! {
        biased;
        ended = listening => ended,
        never = closing => match never {},
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    #[tokio::test]
    async fn should_say_what_the_member_says_when_it_ends_by_itself() {
        let ended = on_thread(async |_| 7).await.expect("it runs");
        assert_eq!(ended, Ended::Done(7));
    }

    #[tokio::test]
    async fn should_drop_nothing_and_run_nothing_again_when_it_is_taken_away() {
        let held = Arc::new(());
        let of_member = held.clone();
        let (ran, mut runs) = mpsc::unbounded_channel();
        let ended = on_thread(async move |crash| {
            let _held = of_member;
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                ran.send("another task of its").expect("somebody listens");
            });
            crash.now()
        });
        let ended: Ended<()> = ended.await.expect("it runs");
        assert_eq!(ended, Ended::TakenAway);
        assert_eq!(Arc::strong_count(&held), 2, "it was dropped");
        let ran = tokio::time::timeout(Duration::from_millis(50), runs.recv()).await;
        assert!(ran.is_err(), "{ran:?} went on, or was dropped");
    }

    #[tokio::test]
    async fn should_say_so_when_the_member_panics() {
        let ended: io::Result<Ended<()>> = on_thread(async |_| panic!("as planned")).await;
        assert_eq!(ended.expect_err("it panics").to_string(), "the member panicked");
    }

    #[tokio::test]
    async fn should_end_well_or_killed_or_failed_when_it_is_a_process() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let echo = "read none; echo first; echo last";
        let ended = in_process(&mut shell(echo), async {}, |_| false).await;
        assert_eq!(ended.expect("it runs"), Ended::Done("last".to_owned()));

        let ended = in_process(&mut shell("echo go; read none"), pending(), |line| line == "go").await;
        assert_eq!(ended.expect("it runs"), Ended::TakenAway);

        let ended = in_process(&mut shell("exit 3"), async {}, |_| false).await;
        let error = ended.expect_err("it fails").to_string();
        assert!(error.ends_with("exit status: 3"), "{error}");
    }
}
