//! A RabbitMQ of one's own.

use std::{
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;

use super::{
    Stop, binaries,
    daemon::{Daemon, Launch},
};
use crate::{Unavailable, services::rabbitmq_version};

/// Where Debian keeps RabbitMQ's own programs. Those on the path insist on a user of that name.
const DEBIAN: &str = "/usr/lib/rabbitmq/bin";
const ENV: &str = "/usr/bin/env";

/// A RabbitMQ of one's own with the usual settings, for tests that restart, pause or starve their server.
///
/// # Errors
/// [`Unavailable::Absent`] when the machine has no RabbitMQ. [`Unavailable::Broken`] when it does not start, with its log.
pub fn private_rabbitmq() -> Result<PrivateRabbitMq, Unavailable> {
    let binaries = folder_of_programs().ok_or_else(|| {
        Unavailable::Absent(format!(
            "no rabbitmq of one's own: rabbitmq-server is neither in {DEBIAN} nor on the path"
        ))
    })?;
    let mut daemon = Daemon::new(Launch {
        name: "rabbitmq",
        program: ENV.into(),
        arguments: Vec::new(),
        // It stops its node then, which a killed script could not.
        immediate: Signal::TERM,
    })?;
    daemon.start_first(
        |folder, port| {
            let mut arguments = settings(folder, port);
            arguments.push(binaries.join("rabbitmq-server").into_os_string());
            Ok(arguments)
        },
        is_ready,
    )?;
    Ok(PrivateRabbitMq { daemon, binaries })
}

/// A RabbitMQ server in a temporary folder, a node of its own name on a free port of 127.0.0.1, run as `postgres` or
/// `nobody` where we are root, with the user and password `guest`.
///
/// Dropping it stops it and removes its folder; its calls block the thread until what they do is done, within a bound.
/// Erlang's port mapper is shared with other nodes of the machine, and started where there is none.
pub struct PrivateRabbitMq {
    daemon: Daemon,
    binaries: PathBuf,
}

impl PrivateRabbitMq {
    /// The URL of its virtual host `/`.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.port())
    }

    /// Its port on 127.0.0.1, which stays the same when it is stopped and started.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.daemon.port()
    }

    /// The last 64 KiB of its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Runs `rabbitmqctl` with these arguments on its node. What it says goes to the log.
    ///
    /// # Errors
    /// When it fails; the error has the log.
    pub fn ctl(&self, arguments: &[&str]) -> io::Result<()> {
        let mut command = Command::new(ENV);
        command
            .args(settings(self.daemon.folder(), self.port()))
            .arg(self.binaries.join("rabbitmqctl"))
            .args(["-n", &node(self.port())])
            .args(arguments);
        self.daemon
            .prepare(&mut command)
            .map_err(|error| io::Error::other(format!("{error:?}")))
    }

    /// Starts it again on the same data and port, and returns when it answers, at most after 60 s. Does nothing when it
    /// runs.
    ///
    /// # Errors
    /// When it does not start; the error has its log.
    pub fn start(&mut self) -> io::Result<()> {
        self.daemon.start(is_ready)
    }

    /// Stops it, and returns when it is gone. Does nothing when it does not run.
    ///
    /// # Errors
    /// When it had to be killed after 30 s.
    pub fn stop(&mut self, how: Stop) -> io::Result<()> {
        match how {
            Stop::Immediate => self.daemon.kill(),
            Stop::Fast => self.daemon.stop(Signal::TERM),
        }
    }

    /// Stops it fast and starts it again.
    ///
    /// # Errors
    /// As [`stop`](Self::stop) and [`start`](Self::start).
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop(Stop::Fast)?;
        self.start()
    }

    /// Holds it: connections stay, nothing answers. Needs `/proc`, as Linux has it.
    ///
    /// # Errors
    /// When it does not run, or cannot be held.
    pub fn pause(&mut self) -> io::Result<()> {
        self.daemon.pause()
    }

    /// Lets it go on. Does nothing when it is not paused.
    ///
    /// # Errors
    /// When it cannot be told so.
    pub fn resume(&mut self) -> io::Result<()> {
        self.daemon.resume()
    }
}

impl fmt::Debug for PrivateRabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateRabbitMq")
            .field("port", &self.port())
            .finish_non_exhaustive()
    }
}

fn folder_of_programs() -> Option<PathBuf> {
    let debian = Path::new(DEBIAN);
    if debian.join("rabbitmq-server").is_file() {
        return Some(debian.to_owned());
    }
    Some(binaries::program("rabbitmq-server")?.parent()?.to_owned())
}

fn url(port: u16) -> String {
    format!("amqp://guest:guest@127.0.0.1:{port}")
}

/// No two servers of the machine have one port, so neither have they one name.
fn node(port: u16) -> String {
    format!("headless{port}@localhost")
}

/// Where nodes and tools find this one. Left out it would be 20 000 higher than the port, among those that connections
/// are given, and taken now and then.
const fn node_port(port: u16) -> u16 {
    10_000 + port % 5_000
}

/// What keeps a node to its folder and its port, as arguments of `env`.
fn settings(folder: &Path, port: u16) -> Vec<OsString> {
    let mut settings: Vec<OsString> = vec!["LC_ALL=C.UTF-8".into(), "RABBITMQ_LOGS=-".into()];
    settings.push(format!("RABBITMQ_NODENAME={}", node(port)).into());
    settings.push(format!("RABBITMQ_NODE_PORT={port}").into());
    settings.push("RABBITMQ_NODE_IP_ADDRESS=127.0.0.1".into());
    settings.push(format!("RABBITMQ_DIST_PORT={}", node_port(port)).into());
    for (name, file) in [
        // Where the node's secret is, which whoever talks to it must know.
        ("HOME", ""),
        ("RABBITMQ_MNESIA_BASE", "data"),
        ("RABBITMQ_LOG_BASE", "log"),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "plugins"),
        ("RABBITMQ_CONFIG_FILE", "rabbitmq"),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced"),
        ("RABBITMQ_CONF_ENV_FILE", "environment"),
        ("RABBITMQ_PID_FILE", "pid"),
    ] {
        let mut setting = OsString::from(format!("{name}="));
        setting.push(folder.join(file));
        settings.push(setting);
    }
    settings
}

fn is_ready(daemon: &Daemon, _pid: u32) -> bool {
    rabbitmq_version(&url(daemon.port())).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_answer_again_on_its_port_when_restarted() {
        let mut server = match private_rabbitmq() {
            Ok(server) => server,
            Err(Unavailable::Absent(_)) => return,
            Err(why) => panic!("{why:?}"),
        };
        let before = (server.url(), rabbitmq_version(&server.url()).unwrap());
        server.ctl(&["list_connections"]).unwrap();
        server.restart().unwrap();
        assert_eq!((server.url(), rabbitmq_version(&server.url()).unwrap()), before);
        server.stop(Stop::Immediate).unwrap();
        assert!(rabbitmq_version(&server.url()).is_err());
        server.start().unwrap();
        assert!(server.ctl(&["no_such_command"]).is_err());
    }
}
