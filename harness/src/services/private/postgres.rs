//! A PostgreSQL of one's own.

use std::{
    ffi::OsString,
    fmt, fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;

use super::{
    Stop, binaries,
    daemon::{Daemon, Launch},
};
use crate::{Unavailable, address::encode};

const USER: &str = "postgres";

/// A PostgreSQL of one's own with the usual settings, for tests that restart, pause or starve their server.
///
/// # Errors
/// As [`PrivatePostgresBuilder::start`].
pub fn private_postgres() -> Result<PrivatePostgres, Unavailable> {
    PrivatePostgres::builder().start()
}

/// A standby of this server: a copy that follows it, is in recovery, and answers reads alone.
///
/// # Errors
/// [`Unavailable::Broken`] when the primary cannot be copied or the copy does not start.
pub fn private_postgres_standby(primary: &PrivatePostgres) -> Result<PrivatePostgres, Unavailable> {
    let mut standby = PrivatePostgres {
        daemon: daemon(&primary.binaries)?,
        binaries: primary.binaries.clone(),
        password: primary.password.clone(),
        settings: Vec::new(),
    };
    let mut copy = Command::new(standby.binaries.join("pg_basebackup"));
    copy.arg("--pgdata")
        .arg(standby.data_dir())
        .args(["--host", "127.0.0.1", "--username", USER, "--no-password"])
        .args(["--port", &primary.port().to_string()])
        .args([
            "--wal-method",
            "stream",
            "--checkpoint",
            "fast",
            "--no-sync",
            "--write-recovery-conf",
        ]);
    if let Some(password) = &primary.password {
        copy.env("PGPASSWORD", password);
    }
    standby.daemon.prepare(&mut copy)?;
    // A standby must have room for what its primary may do, so it takes over the primary's settings.
    standby.first(&primary.settings)?;
    Ok(standby)
}

/// A PostgreSQL server in a temporary folder, on a free port of 127.0.0.1, run as `postgres` where we are root.
///
/// It keeps its promises about disks (`fsync` is on). Dropping it stops it at once and removes its folder; where that
/// cannot be done, since the test program was killed or keeps the handle in a static, a process outside of it does so.
///
/// Its calls block the thread until what they do is done, within a bound; no call needs a runtime.
///
/// ```no_run
/// use headless_harness::services::{PrivatePostgres, Stop};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let started =
/// PrivatePostgres::builder()
///     .password("p@ss:/%")
///     .setting("max_connections", "20")
///     .start();
/// # let mut server = started.map_err(|why| format!("{why:?}"))?;
/// let url = server.url();
/// server.stop(Stop::Immediate)?;
/// server.start()?; // the same data, and the same url
/// # Ok(())
/// # }
/// ```
pub struct PrivatePostgres {
    daemon: Daemon,
    binaries: PathBuf,
    password: Option<String>,
    settings: Vec<(String, String)>,
}

impl PrivatePostgres {
    /// A server with settings of one's own.
    pub fn builder() -> PrivatePostgresBuilder {
        PrivatePostgresBuilder::default()
    }

    /// The URL of its database `postgres`, with its superuser and the password if there is one.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_for("postgres")
    }

    /// The URL of a database of this name, whether there is one or not.
    #[must_use]
    pub fn url_for(&self, database: &str) -> String {
        let password = self
            .password
            .as_deref()
            .map(|password| format!(":{}", encode(password)));
        format!(
            "postgres://{USER}{}@127.0.0.1:{}/{}",
            password.unwrap_or_default(),
            self.port(),
            encode(database)
        )
    }

    /// Its port on 127.0.0.1, which stays the same when it is stopped and started.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.daemon.port()
    }

    /// Where its data is.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        data_dir(self.daemon.folder())
    }

    /// The last 64 KiB of its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Starts it again on the same data and port, and returns when it accepts connections, at most after 60 s. Does
    /// nothing when it runs.
    ///
    /// # Errors
    /// When it does not start; the error has its log.
    pub fn start(&mut self) -> io::Result<()> {
        self.daemon.start(is_ready)
    }

    /// Stops it, and returns when it is gone. Does nothing when it does not run; one that is paused goes on first.
    ///
    /// # Errors
    /// When it had to be killed after 30 s.
    pub fn stop(&mut self, how: Stop) -> io::Result<()> {
        self.daemon.stop(match how {
            Stop::Immediate => Signal::QUIT,
            Stop::Fast => Signal::INT,
        })
    }

    /// Stops it fast and starts it again.
    ///
    /// # Errors
    /// As [`stop`](Self::stop) and [`start`](Self::start).
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop(Stop::Fast)?;
        self.start()
    }

    /// Holds the server with all its processes, as a machine that hangs would: connections stay, nothing answers. The
    /// kernel still accepts new ones. Returns when nothing of it runs any more. Needs `/proc`, as Linux has it.
    ///
    /// # Errors
    /// When it does not run, or cannot be held.
    pub fn pause(&mut self) -> io::Result<()> {
        self.daemon.pause()
    }

    /// Lets a paused server go on. Does nothing when it is not paused.
    ///
    /// # Errors
    /// When it cannot be told so.
    pub fn resume(&mut self) -> io::Result<()> {
        self.daemon.resume()
    }

    fn first(&mut self, settings: &[(String, String)]) -> Result<(), Unavailable> {
        self.settings = settings.to_vec();
        self.daemon
            .start_first(|folder, port| Ok(arguments(folder, port, settings)), is_ready)
    }
}

impl fmt::Debug for PrivatePostgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivatePostgres")
            .field("port", &self.port())
            .field("data_dir", &self.data_dir())
            .finish_non_exhaustive()
    }
}

/// How a [`PrivatePostgres`] is to be.
#[derive(Clone, Default)]
#[must_use]
pub struct PrivatePostgresBuilder {
    password: Option<String>,
    settings: Vec<(String, String)>,
}

impl PrivatePostgresBuilder {
    /// Asks every connection for this password (SCRAM-SHA-256) instead of trusting it. One line of text, not empty.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// A server setting as in `postgresql.conf`; the last one of a name counts.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Makes the data and starts the server, and returns when it accepts connections.
    ///
    /// # Errors
    /// [`Unavailable::Absent`] when the machine has no PostgreSQL: its programs are neither on the path nor in
    /// `/usr/lib/postgresql/<version>/bin`. [`Unavailable::Broken`] when the server does not start, with its log.
    pub fn start(self) -> Result<PrivatePostgres, Unavailable> {
        let binaries = binaries::postgres().ok_or_else(|| {
            let why = "no postgres of one's own: initdb and postgres are neither on the path nor in \
                       /usr/lib/postgresql/*/bin";
            Unavailable::Absent(why.to_owned())
        })?;
        let mut server = PrivatePostgres {
            daemon: daemon(&binaries)?,
            binaries,
            password: self.password,
            settings: Vec::new(),
        };
        server.make_data()?;
        server.first(&self.settings)?;
        Ok(server)
    }
}

impl fmt::Debug for PrivatePostgresBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivatePostgresBuilder")
            .field("password", &self.password.is_some())
            .field("settings", &self.settings)
            .finish()
    }
}

impl PrivatePostgres {
    fn make_data(&self) -> Result<(), Unavailable> {
        let mut make = Command::new(self.binaries.join("initdb"));
        make.arg("--pgdata")
            .arg(self.data_dir())
            .args(["--username", USER]);
        // Data that no crash of the machine will ever find need not be on its disk before the server starts.
        make.args(["--encoding", "UTF8", "--locale", "C", "--no-sync"]);
        if let Some(password) = &self.password {
            let file = self
                .write_password(password)
                .map_err(|error| self.daemon.broken(&format!("the password: {error}")))?;
            make.arg("--pwfile").arg(file).args(["--auth", "scram-sha-256"]);
        } else {
            make.args(["--auth", "trust"]);
        }
        self.daemon.prepare(&mut make)
    }

    fn write_password(&self, password: &str) -> io::Result<PathBuf> {
        if password.is_empty() || password.contains(['\n', '\r', '\0']) {
            return Err(io::Error::other("it must be one line of text"));
        }
        let file = self.daemon.folder().join("password");
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)?
            .write_all(password.as_bytes())?;
        self.daemon.account().give(&file)?;
        Ok(file)
    }
}

fn daemon(binaries: &Path) -> Result<Daemon, Unavailable> {
    Daemon::new(Launch {
        name: "postgres",
        program: binaries.join("postgres"),
        arguments: Vec::new(),
        immediate: Signal::QUIT,
    })
}

fn data_dir(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn arguments(folder: &Path, port: u16, settings: &[(String, String)]) -> Vec<OsString> {
    let mut arguments = vec!["-D".into(), data_dir(folder).into_os_string()];
    let mut set = |name: &str, value: &str| {
        arguments.push("-c".into());
        arguments.push(format!("{name}={value}").into());
    };
    set("listen_addresses", "127.0.0.1");
    set("port", &port.to_string());
    set("unix_socket_directories", &folder.to_string_lossy());
    set("fsync", "on");
    set("logging_collector", "off");
    // Many of them may run beside each other.
    set("shared_buffers", "32MB");
    for (name, value) in settings {
        set(name, value);
    }
    arguments
}

/// Whether the server accepts connections, by the first and the eighth line of its lock file: as pg_ctl finds out.
fn is_ready(daemon: &Daemon, pid: u32) -> bool {
    let lock = fs::read_to_string(data_dir(daemon.folder()).join("postmaster.pid")).unwrap_or_default();
    let mut lines = lock.lines().map(str::trim);
    lines.next() == Some(&pid.to_string()) && lines.nth(6) == Some("ready")
}
