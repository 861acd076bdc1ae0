//! Processes of the command.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    os::unix::fs::FileExt,
    process::{Child, Command, ExitStatus, Stdio},
};

use crate::world::eventually;

/// A process, killed when it is dropped.
pub(crate) struct Process {
    args: String,
    child: Child,
    stdout: File,
    stderr: File,
}

/// What became of one.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Process {
    pub(crate) fn start(args: &[&str]) -> Self {
        // Files instead of pipes: nobody has to read them while it runs.
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_headless"))
            .args(args)
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap();
        Self {
            args: args.join(" "),
            child,
            stdout,
            stderr,
        }
    }

    /// Kills it with SIGKILL. It must have been running.
    pub(crate) fn kill(mut self) {
        self.assert_running();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Writes to its standard input.
    pub(crate) fn write(&mut self, text: &str) {
        self.child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Fails, with what it said, if it has ended.
    pub(crate) fn assert_running(&mut self) {
        assert!(self.is_running(), "{}: {}", self.args, read(&mut self.stderr));
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has printed so far.
    pub(crate) fn printed(&self) -> String {
        so_far(&self.stdout)
    }

    /// What it has said so far on standard error.
    pub(crate) fn said(&self) -> String {
        so_far(&self.stderr)
    }

    /// Ends its input, and waits until it has ended.
    pub(crate) async fn end(mut self) -> Ended {
        drop(self.child.stdin.take());
        let what = format!("the end of {}", self.args);
        let status: ExitStatus = eventually(&what, async || self.child.try_wait().unwrap()).await;
        let [stdout, stderr] = [&mut self.stdout, &mut self.stderr].map(read);
        Ended {
            code: status.code(),
            stdout,
            stderr,
        }
    }

    /// As [`end`](Self::end), where it has to end well.
    pub(crate) async fn end_well(self) -> String {
        let args = self.args.clone();
        let ended = self.end().await;
        assert_eq!(ended.code, Some(0), "{args}: {} {}", ended.stdout, ended.stderr);
        ended.stdout
    }
}

fn read(file: &mut File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

/// As [`read`], where the process still writes: the place at which it does is shared with ours, and stays where it is.
fn so_far(file: &File) -> String {
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped one dies of it too. One that has ended already is no concern.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
