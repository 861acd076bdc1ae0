//! A PgBouncer of one's own in front of a PostgreSQL.

use std::{fmt, fs, io, net::SocketAddr, num::NonZero, path::Path};

use rustix::process::Signal;

use super::{
    Stop, binaries,
    daemon::{Daemon, Launch},
};
use crate::{Unavailable, address::Address};

const CONFIG: &str = "pgbouncer.ini";
const PID: &str = "pgbouncer.pid";

/// A PgBouncer of one's own in front of the PostgreSQL that this URL names, with the usual settings.
///
/// # Errors
/// As [`PrivatePgbouncerBuilder::start`].
pub fn private_pgbouncer(upstream_url: &str) -> Result<PrivatePgbouncer, Unavailable> {
    PrivatePgbouncer::builder(upstream_url).start()
}

/// A PgBouncer that pools transactions, in a temporary folder, on a free port of 127.0.0.1, run as `postgres` or
/// `nobody` where we are root.
///
/// Whoever connects is taken for the user of the upstream's URL, unasked. Dropping it stops it at once and removes its
/// folder, as with a [`PrivatePostgres`](super::PrivatePostgres); its calls block the thread in the same way.
pub struct PrivatePgbouncer {
    daemon: Daemon,
    upstream: String,
}

impl PrivatePgbouncer {
    /// One with settings of one's own, in front of the PostgreSQL that this URL names.
    pub fn builder(upstream_url: &str) -> PrivatePgbouncerBuilder {
        PrivatePgbouncerBuilder {
            upstream: upstream_url.to_owned(),
            pool_size: NonZero::<u16>::MIN.saturating_add(3),
        }
    }

    /// The upstream's URL with this port in it: the same user, the same database.
    #[must_use]
    pub fn url(&self) -> String {
        // It was read before this was started, so there is no why.
        Address::parse(&self.upstream).map_or_else(|why| why, |upstream| upstream.at(self.place()))
    }

    /// The URL of another database of the upstream through this port.
    #[must_use]
    pub fn url_for(&self, database: &str) -> String {
        Address::parse(&self.upstream)
            .map_or_else(|why| why, |upstream| upstream.at_for(self.place(), database))
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

    /// Starts it again on the same port, and returns when it accepts connections, at most after 60 s. Does nothing
    /// when it runs.
    ///
    /// # Errors
    /// When it does not start; the error has its log.
    pub fn start(&mut self) -> io::Result<()> {
        self.daemon.start(is_ready)
    }

    /// Stops it, and returns when it is gone; what is in its pool is closed, at the latest by the kernel. Does nothing
    /// when it does not run.
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

    fn place(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port()).into()
    }
}

impl fmt::Debug for PrivatePgbouncer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivatePgbouncer")
            .field("port", &self.port())
            .finish_non_exhaustive()
    }
}

/// How a [`PrivatePgbouncer`] is to be.
#[derive(Clone)]
#[must_use]
pub struct PrivatePgbouncerBuilder {
    upstream: String,
    pool_size: NonZero<u16>,
}

impl PrivatePgbouncerBuilder {
    /// How many connections it holds to each database; 4 unless said.
    pub const fn pool_size(mut self, pool_size: NonZero<u16>) -> Self {
        self.pool_size = pool_size;
        self
    }

    /// Starts it, and returns when it accepts connections. It connects to the upstream only when it is asked to.
    ///
    /// # Errors
    /// [`Unavailable::Absent`] when the machine has no `pgbouncer`. [`Unavailable::Broken`] when it does not start,
    /// with its log, or when the upstream's URL names no server.
    pub fn start(self) -> Result<PrivatePgbouncer, Unavailable> {
        let absent =
            || Unavailable::Absent("no pgbouncer of one's own: there is no program pgbouncer".to_owned());
        let program = binaries::program("pgbouncer").ok_or_else(absent)?;
        let upstream = Address::parse(&self.upstream)
            .map_err(|why| Unavailable::Broken(format!("what pgbouncer is to stand in front of: {why}")))?;
        let mut daemon = Daemon::new(Launch {
            name: "pgbouncer",
            program,
            arguments: Vec::new(),
            immediate: Signal::TERM,
        })?;
        let account = daemon.account();
        daemon.start_first(
            |folder, port| {
                let file = folder.join(CONFIG);
                // It may hold a password, and the folder lets nobody else in.
                fs::write(&file, config(&upstream, folder, port, self.pool_size))?;
                account.give(&file)?;
                Ok(vec![file.into_os_string()])
            },
            is_ready,
        )?;
        Ok(PrivatePgbouncer {
            daemon,
            upstream: self.upstream,
        })
    }
}

impl fmt::Debug for PrivatePgbouncerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivatePgbouncerBuilder")
            .field("pool_size", &self.pool_size)
            .finish_non_exhaustive()
    }
}

fn config(upstream: &Address<'_>, folder: &Path, port: u16, pool_size: NonZero<u16>) -> String {
    let mut database = format!("* = host={} port={}", quote(upstream.host()), upstream.port());
    database.push_str(&format!(
        " user={}",
        quote(&upstream.user().unwrap_or_else(|| "postgres".to_owned()))
    ));
    if let Some(password) = upstream.password() {
        database.push_str(&format!(" password={}", quote(&password)));
    }
    let pid = folder.join(PID);
    format!(
        "[databases]\n{database}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = {pool_size}\n\
         ignore_startup_parameters = extra_float_digits\npidfile = {}\n",
        pid.display()
    )
}

/// A value of a connection string: in single quotes, which are doubled within.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// It writes its number down once it listens.
fn is_ready(daemon: &Daemon, pid: u32) -> bool {
    let written = fs::read_to_string(daemon.folder().join(PID)).unwrap_or_default();
    written.trim() == pid.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_keep_a_password_whole_when_it_has_quotes() {
        let upstream = Address::parse("postgres://me:it%27s%20%5Cme@127.0.0.1:6000/db").unwrap();
        let config = config(&upstream, Path::new("/tmp/x"), 7, NonZero::<u16>::MIN);
        assert!(
            config.contains("* = host='127.0.0.1' port=6000 user='me' password='it''s \\me'\n"),
            "{config}"
        );
        assert!(config.contains("listen_port = 7\n") && config.contains("default_pool_size = 1\n"));
    }
}
