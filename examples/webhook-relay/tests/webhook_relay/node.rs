//! A process of the service.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::github::SECRET;

/// What must come, comes within this time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked for.
const STEP: Duration = Duration::from_millis(20);

/// A process of the service, killed when it is dropped.
pub(crate) struct Node {
    url: String,
    child: Child,
    log: File,
}

impl Node {
    /// Starts one with these arguments, and waits until it listens.
    pub(crate) fn start(args: &[&str]) -> Self {
        let log = tempfile::tempfile().unwrap();
        let mut child = command(args)
            .env("WEBHOOK_SECRET", SECRET)
            .stdout(Stdio::piped())
            .stderr(log.try_clone().unwrap())
            .spawn()
            .unwrap();
        // It says where it listens, or ends.
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut url)
            .unwrap();
        let mut node = Self {
            url: url.trim().to_owned(),
            child,
            log,
        };
        assert!(
            node.url.starts_with("http://127.0.0.1:"),
            "{args:?}: {}",
            node.log()
        );
        node
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Kills it with SIGKILL. It must have been running.
    pub(crate) fn kill(mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "{}", self.log());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, with SIGTERM, and waits until it has.
    pub(crate) async fn end(mut self) -> (ExitStatus, String) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", "TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let status = eventually("the end of a node", async || self.child.try_wait().unwrap()).await;
        (status, self.log())
    }

    /// What it has logged.
    pub(crate) fn log(&mut self) -> String {
        let mut text = String::new();
        self.log.rewind().unwrap();
        self.log.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // One that has ended already is no concern.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The command with these arguments, on a free port, without what this process has been told by its own environment.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_webhook-relay"));
    for variable in [
        "RUST_LOG",
        "WEBHOOK_SECRET",
        "WEBHOOK_SECRET_FILE",
        "WEBHOOK_RELAY_STORE",
        "WEBHOOK_RELAY_TRANSPORT",
    ] {
        command.env_remove(variable);
    }
    command
        .args(["--listen", "127.0.0.1:0"])
        .args(args)
        .stdin(Stdio::null());
    command
}

/// Looks until there is something, in bounded time.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            steps.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    let found = timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}
