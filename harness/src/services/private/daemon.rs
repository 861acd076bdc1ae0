//! A server process in a folder of its own: started, stopped, paused and seen to its end.

use std::{
    env,
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use uuid::Uuid;

use super::{
    account::Account,
    folder::Folder,
    process::{family, is_stopped, signal, wait_until},
};
use crate::Unavailable;

/// The longest that a server may take to be ready: recovery and a busy machine included.
const START: Duration = Duration::from_secs(60);
/// The longest that a program which makes or copies a server's data may take.
const PREPARE: Duration = Duration::from_secs(120);
/// The longest that a server may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(30);
/// The longest that a process may take to stand still.
const PAUSE: Duration = Duration::from_secs(5);
/// How much of the log's end is told.
const LOG_END: u64 = 64 * 1024;
/// Below the ports that connections are given (Linux: from 32768, IANA: from 49152), so that a stopped server finds its
/// port free when it starts again.
const PORTS: std::ops::Range<u16> = 15_000..32_000;
/// How often another port is tried when somebody else was quicker.
const PORT_TRIES: usize = 8;
/// What the log says then: in most servers' words, and in RabbitMQ's of the port that its nodes talk at.
const PORT_TAKEN: [&str; 2] = ["Address already in use", "could not bind to distribution port"];

/// How a kind of server is run.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    /// Given the folder and the port.
    pub(super) arguments: Vec<OsString>,
    /// What ends it at once.
    pub(super) immediate: Signal,
}

/// A server and its folder. Dropping it stops the server at once and removes the folder.
#[derive(Debug)]
pub(super) struct Daemon {
    launch: Launch,
    account: Account,
    port: u16,
    child: Option<Child>,
    paused: bool,
    // Last, since it goes when nothing works in it any more.
    folder: Folder,
}

impl Daemon {
    /// A server that is not started yet, in a new folder.
    pub(super) fn new(launch: Launch) -> Result<Self, Unavailable> {
        let broken = |error: io::Error| Unavailable::Broken(format!("{}: {error}", launch.name));
        let account = Account::for_servers().map_err(broken)?;
        let folder = Folder::new(launch.name, account).map_err(broken)?;
        Ok(Self {
            launch,
            account,
            port: 0,
            child: None,
            paused: false,
            folder,
        })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    pub(super) const fn account(&self) -> Account {
        self.account
    }

    /// Runs a program of the server's to its end, as its user, in its folder.
    pub(super) fn prepare(&self, command: &mut Command) -> Result<(), Unavailable> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut run = || {
            let mut child = self.in_folder(command)?.spawn()?;
            let ended = wait_until(PREPARE, &program, || child.try_wait());
            if ended.is_err() {
                child.kill()?;
                child.wait()?;
            }
            ended
        };
        match run() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.broken(&format!("{program}: {status}"))),
            Err(error) => Err(self.broken(&format!("{program}: {error}"))),
        }
    }

    /// Starts on a port that nobody has, for the first time. `configure` makes ready what the port stands in.
    pub(super) fn start_first(
        &mut self,
        mut configure: impl FnMut(&Path, u16) -> io::Result<Vec<OsString>>,
        ready: impl Fn(&Self, u32) -> bool,
    ) -> Result<(), Unavailable> {
        let mut tries = PORT_TRIES;
        loop {
            let arguments = free_port().and_then(|port| {
                self.port = port;
                configure(self.folder.path(), port)
            });
            self.launch.arguments = arguments.map_err(|error| self.broken(&error.to_string()))?;
            let told = self.log().len();
            match self.start(&ready) {
                Ok(()) => return Ok(()),
                Err(_) if tries > 1 && self.says(told, &PORT_TAKEN) => tries -= 1,
                Err(error) => return Err(Unavailable::Broken(error.to_string())),
            }
        }
    }

    /// Whether the log has said one of these since it had this length.
    fn says(&self, since: usize, texts: &[&str]) -> bool {
        let log = self.log();
        log.get(since..)
            .is_some_and(|new| texts.iter().any(|text| new.contains(text)))
    }

    /// Starts, or does nothing when it runs. `ready` is asked with the number of the process.
    pub(super) fn start(&mut self, ready: impl Fn(&Self, u32) -> bool) -> io::Result<()> {
        if self.ended()?.is_none() && self.child.is_some() {
            return Ok(());
        }
        let mut command = Command::new(&self.launch.program);
        command.args(&self.launch.arguments);
        let child = self.in_folder(&mut command)?.spawn()?;
        let pid = child.id();
        self.child = Some(child);
        let what = format!("{} is ready", self.launch.name);
        let started = wait_until(START, &what, || match self.ended()? {
            Some(status) => Err(io::Error::other(format!("it ended: {status}"))),
            None => Ok(ready(self, pid).then_some(())),
        });
        started.map_err(|error| {
            let stopped = self.stop(self.launch.immediate).err();
            let also =
                stopped.map_or_else(String::new, |error| format!("; it does not stop either: {error}"));
            io::Error::new(error.kind(), self.tell(&format!("{error}{also}")))
        })
    }

    /// Stops by this signal, or does nothing when it does not run. Killed when that takes too long, which is an error.
    pub(super) fn stop(&mut self, by: Signal) -> io::Result<()> {
        self.resume()?;
        let Some(pid) = self.child.as_ref().map(Child::id) else {
            return Ok(());
        };
        signal(pid, by)?;
        let name = self.launch.name;
        let stopped = wait_until(STOP, &format!("{name} stops"), || self.ended());
        if stopped.is_err() {
            self.kill()?;
        }
        stopped.map(|_| ())
    }

    /// Ends it and all that it started, as a crash of the machine would.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        let Some(pid) = self.child.as_ref().map(Child::id) else {
            return Ok(());
        };
        // Found before they lose their parent. Where they cannot be found, they find that out by themselves.
        let members = family(pid).unwrap_or_else(|_| vec![pid]);
        for member in &members {
            signal(*member, Signal::KILL)?;
        }
        self.paused = false;
        let name = self.launch.name;
        wait_until(STOP, &format!("{name} is killed"), || self.ended())?;
        wait_until(STOP, &format!("what {name} started is gone"), || {
            Ok(members
                .iter()
                .all(|member| is_stopped(*member).is_none())
                .then_some(()))
        })
    }

    /// Holds it and all that it started, and returns when nothing of it runs any more.
    pub(super) fn pause(&mut self) -> io::Result<()> {
        if self.ended()?.is_some() || self.child.is_none() {
            return Err(io::Error::other(format!("{} does not run", self.launch.name)));
        }
        let Some(pid) = self.child.as_ref().map(Child::id) else {
            return Ok(());
        };
        self.paused = true;
        // The first of them starts the others: once it stands still, there will be no new ones.
        hold(pid)?;
        for member in family(pid)? {
            hold(member)?;
        }
        Ok(())
    }

    /// Lets it go on, or does nothing when it is not held.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        if !self.paused {
            return Ok(());
        }
        if let Some(child) = &self.child {
            for member in family(child.id())? {
                signal(member, Signal::CONT)?;
            }
        }
        self.paused = false;
        Ok(())
    }

    /// The end of what it has said, with what prepared it.
    pub(super) fn log(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(self.log_file())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_END)))?;
            let mut end = Vec::new();
            file.take(LOG_END).read_to_end(&mut end)?;
            Ok(end)
        };
        match read() {
            Ok(end) => String::from_utf8_lossy(&end).into_owned(),
            Err(error) => format!("the log cannot be read: {error}"),
        }
    }

    pub(super) fn broken(&self, what: &str) -> Unavailable {
        Unavailable::Broken(self.tell(what))
    }

    fn tell(&self, what: &str) -> String {
        format!("{}: {what}; its log ends with:\n{}", self.launch.name, self.log())
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// The command as the server's user, in its folder, saying what it says to the log.
    fn in_folder<'a>(&self, command: &'a mut Command) -> io::Result<&'a mut Command> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())?;
        self.account.run(command);
        // What a user's environment says about their own servers is nothing to these.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            if !command.get_envs().any(|(set, _)| set == name) {
                command.env_remove(name);
            }
        }
        Ok(command
            .env("LC_ALL", "C")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A Ctrl-C is for the test program.
            .process_group(0))
    }

    /// How it ended, once it has. `None` while it runs, or when there is none.
    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let ended = child.try_wait()?;
        if ended.is_some() {
            self.child = None;
        }
        Ok(ended)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.stop(self.launch.immediate).is_err() {
            // What survives this is left to the watchman of the folder.
            let _killed = self.kill();
        }
    }
}

fn hold(pid: u32) -> io::Result<()> {
    signal(pid, Signal::STOP)?;
    wait_until(PAUSE, &format!("process {pid} stands still"), || {
        Ok(is_stopped(pid).unwrap_or(true).then_some(()))
    })
}

/// A port of the loopback device that nobody listens on now.
fn free_port() -> io::Result<u16> {
    let mut last = None;
    for _ in 0..PORT_TRIES {
        let chance = u16::from_le_bytes([Uuid::new_v4().as_bytes()[0], Uuid::new_v4().as_bytes()[1]]);
        let port = PORTS.start + chance % (PORTS.end - PORTS.start);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("no port was tried")))
}
