//! What can be seen of a server from here, and what to do about it. Nothing on it is changed.

use std::time::Duration;

use chrono::{DateTime, Utc};
use headless_abstractions::{Check, Clock, ErrorKind, Finding, Result};
use sqlx::{Connection, PgConnection, Row, postgres::PgRow};

use crate::{Pooler, PostgresConfig, error::fault, migrate, postgres::in_time, sql::statements};

statements! {
    Statements {
        examine: "store/examine",
        rights: "store/rights",
    }
}

/// The first version of the server that has all of what the provider's statements use.
const LEAST: i32 = 140_000;

/// The clocks are called apart from here on. No lease depends on it: those are of the server's clock alone.
const APART: Duration = Duration::from_secs(1);

/// What this server, database and schema are like for a service with these settings. Each look is made as long as the one
/// before it allows; the first that fails is the last.
pub(crate) async fn examine(config: &PostgresConfig, clock: &dyn Clock) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut conn = match migrate::connect(config).await {
        Ok(conn) => conn,
        Err(error) => {
            findings.push(unreachable(config, &error));
            return findings;
        }
    };
    if let Err(error) = look(&mut conn, config, clock, &mut findings).await {
        findings.push(Finding::failed(Check::Reachable, &error));
    }
    // The look is over: how the good-bye is taken does not matter.
    let _closed = conn.close().await;
    findings
}

async fn look(
    conn: &mut PgConnection,
    config: &PostgresConfig,
    clock: &dyn Clock,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let statements = Statements::new(&config.schema);
    // In one transaction: behind a pooler each statement might go to another session otherwise.
    let mut tx = in_time(config, migrate::begin(conn, config)).await?;
    let (asked, started) = (clock.now(), clock.monotonic());
    let server = in_time(config, async {
        let row = sqlx::query(statements.examine.get()).persistent(false);
        Server::read(&row.fetch_one(&mut *tx).await.map_err(fault)?)
    })
    .await?;
    let took = clock.monotonic().saturating_sub(started);
    findings.push(Finding::good(
        Check::Reachable,
        format!(
            "answers at {} as user {:?} in {took:.1?}",
            config.endpoint(),
            server.user
        ),
    ));
    findings.push(server.version());
    findings.push(server.writable());
    findings.push(server.durable());
    findings.push(server.capacity(config));
    findings.push(server.clock(asked, took));
    let rights = in_time(config, async {
        let row = sqlx::query(statements.rights.get()).persistent(false);
        Rights::read(&row.fetch_one(&mut *tx).await.map_err(fault)?)
    });
    let rights = match rights.await {
        Ok(rights) => rights,
        Err(error) => {
            findings.push(Finding::failed(Check::Rights, &error));
            return Ok(());
        }
    };
    in_time(config, async { tx.rollback().await.map_err(fault) }).await?;
    // Without the use of the schema nobody can look into it.
    if rights.may_look {
        findings.push(schema(config, &rights).await);
    } else {
        findings.push(Finding::unknown(
            Check::Schema,
            format!("schema {} may not be looked into", config.schema),
        ));
    }
    findings.push(rights.finding(config));
    Ok(())
}

fn unreachable(config: &PostgresConfig, error: &headless_abstractions::Error) -> Finding {
    let mut finding = Finding::failed(Check::Reachable, error);
    finding.found = format!("{}: {}", config.endpoint(), finding.found);
    let fix = match (error.kind(), error.message()) {
        (ErrorKind::Denied, _) => {
            "correct user, password or sslmode of the URL, or let the server's pg_hba.conf admit this user from here"
        }
        (_, text) if text.contains("lacks a resource") => {
            "the server has no room for another connection: end some, raise its max_connections, or put a pooler in between"
        }
        (_, text) if text.contains("ended the connection") => {
            "the server runs and takes nobody now, as while it starts or stops: look at its log, and try again"
        }
        _ => return finding,
    };
    finding.fix = Some(fix.to_owned());
    finding
}

/// What a server says of itself.
struct Server {
    version: i32,
    version_name: String,
    user: String,
    is_in_recovery: bool,
    is_read_only: bool,
    syncs: bool,
    writes_pages: bool,
    commits: String,
    connections: i32,
    connected: i32,
    now: DateTime<Utc>,
}

impl Server {
    fn read(row: &PgRow) -> Result<Self> {
        let micros: i64 = row.try_get("micros").map_err(fault)?;
        Ok(Self {
            version: row.try_get("version").map_err(fault)?,
            version_name: row.try_get("version_name").map_err(fault)?,
            user: row.try_get("user").map_err(fault)?,
            is_in_recovery: row.try_get("is_in_recovery").map_err(fault)?,
            is_read_only: row.try_get("is_read_only").map_err(fault)?,
            syncs: row.try_get("syncs").map_err(fault)?,
            writes_pages: row.try_get("writes_pages").map_err(fault)?,
            commits: row.try_get("commits").map_err(fault)?,
            connections: row.try_get("connections").map_err(fault)?,
            connected: row.try_get("connected").map_err(fault)?,
            now: DateTime::from_timestamp_micros(micros).unwrap_or_default(),
        })
    }

    fn version(&self) -> Finding {
        let found = format!("PostgreSQL {}", self.version_name);
        if self.version >= LEAST {
            return Finding::good(Check::Version, found);
        }
        let least = LEAST / 10_000;
        Finding::bad(Check::Version, found, format!("use PostgreSQL {least} or newer"))
    }

    fn writable(&self) -> Finding {
        if self.is_in_recovery {
            return Finding::bad(
                Check::Writable,
                "the server is a standby, or in recovery: it takes no writes",
                "give the URL the host of the primary",
            );
        }
        if self.is_read_only {
            return Finding::bad(
                Check::Writable,
                "transactions are read-only here",
                "set default_transaction_read_only to off for this user and database, and see why it was on",
            );
        }
        Finding::good(Check::Writable, "a primary that takes writes")
    }

    fn durable(&self) -> Finding {
        for (name, is_on) in [("fsync", self.syncs), ("full_page_writes", self.writes_pages)] {
            if !is_on {
                return Finding::bad(
                    Check::Durable,
                    format!("{name} is off: a crash of the machine may lose or corrupt what was committed"),
                    format!("set {name} to on in postgresql.conf"),
                );
            }
        }
        if self.commits == "off" {
            return Finding::bad(
                Check::Durable,
                "synchronous_commit is off: a crash may lose what was committed in the last moments",
                "set synchronous_commit to on, for this user and database or for the server",
            );
        }
        Finding::good(
            Check::Durable,
            format!("commits are on disk (synchronous_commit = {})", self.commits),
        )
    }

    fn capacity(&self, config: &PostgresConfig) -> Finding {
        if config.pooler == Pooler::Transaction {
            return Finding::unknown(
                Check::Capacity,
                "a pooler stands in between, which has limits of its own",
            );
        }
        let of_ours =
            i64::from(config.max_connections.get()) + i64::from(config.control_connections.get()) + 2;
        let free = i64::from(self.connections) - i64::from(self.connected);
        let found = format!(
            "{} of {} connections are in use; a process with these settings takes up to {of_ours}",
            self.connected, self.connections
        );
        if free >= of_ours {
            return Finding::good(Check::Capacity, found);
        }
        Finding::doubtful(
            Check::Capacity,
            found,
            "raise max_connections of the server, lower max_connections and control_connections of the URL, or put a pooler \
             in between",
        )
    }

    /// The server looked at its clock at some moment of the call.
    fn clock(&self, asked: DateTime<Utc>, took: Duration) -> Finding {
        let answered = asked + took;
        let apart = if self.now < asked {
            asked - self.now
        } else {
            self.now - answered.min(self.now)
        };
        let apart = apart.to_std().unwrap_or_default();
        if apart < APART {
            return Finding::good(Check::Clock, format!("within {APART:?} of ours"));
        }
        let word = if self.now < asked { "behind" } else { "ahead of" };
        Finding::doubtful(
            Check::Clock,
            format!("the server's clock is {apart:.1?} {word} ours"),
            "synchronize both with NTP: leases and delays are of the server's clock alone and hold, but times of publishing, \
             of dead letters and in logs do not agree",
        )
    }
}

/// What the user may do.
struct Rights {
    first: Option<String>,
    missing: i32,
    remedies: Option<Vec<String>>,
    may_create: bool,
    may_look: bool,
}

impl Rights {
    fn read(row: &PgRow) -> Result<Self> {
        let first: Option<String> = row.try_get("first").map_err(fault)?;
        Ok(Self {
            may_look: row.try_get("may_look").map_err(fault)?,
            first,
            missing: row.try_get("missing").map_err(fault)?,
            remedies: row.try_get("remedies").map_err(fault)?,
            may_create: row.try_get("may_create").map_err(fault)?,
        })
    }

    fn finding(self, config: &PostgresConfig) -> Finding {
        let (Some(first), Some(remedies)) = (self.first, self.remedies) else {
            return Finding::good(
                Check::Rights,
                format!("all that a service does in schema {}", config.schema),
            );
        };
        let others = match self.missing {
            1 => String::new(),
            missing => format!(", and {} more", missing - 1),
        };
        Finding::bad(
            Check::Rights,
            format!("missing: {first}{others}"),
            format!(
                "as the owner of schema {}: {}",
                config.schema,
                remedies.join("; ")
            ),
        )
    }
}

async fn schema(config: &PostgresConfig, rights: &Rights) -> Finding {
    let state = match migrate::check(config).await {
        Ok(state) => state,
        Err(error) => {
            let mut finding = Finding::failed(Check::Schema, &error);
            if error.kind() == ErrorKind::Denied {
                let found = format!("schema {} may not be looked into: see the rights", config.schema);
                return Finding::unknown(Check::Schema, found);
            }
            if error.kind() == ErrorKind::Conflict {
                finding.fix =
                    Some("do what is said, before any service of this version is started".to_owned());
            }
            return finding;
        }
    };
    let (applied, schema) = (state.applied.len(), &config.schema);
    let Some(first) = state.pending.first() else {
        return Finding::good(
            Check::Schema,
            format!("schema {schema} is up to date ({applied} migrations)"),
        );
    };
    let found = format!(
        "schema {schema} lacks {} of {} migrations, the first is {}",
        state.pending.len(),
        applied + state.pending.len(),
        first.name
    );
    if rights.may_create {
        Finding::bad(Check::Schema, found, "run `headless migrate --store URL`")
    } else {
        Finding::bad(
            Check::Schema,
            found,
            format!(
                "run `headless migrate --store URL` as a user who may create in schema {schema}: this one may not"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use headless_abstractions::Condition;

    use super::*;

    fn server() -> Server {
        Server {
            version: 150_004,
            version_name: "15.4".to_owned(),
            user: "app".to_owned(),
            is_in_recovery: false,
            is_read_only: false,
            syncs: true,
            writes_pages: true,
            commits: "on".to_owned(),
            connections: 97,
            connected: 5,
            now: DateTime::from_timestamp_micros(1_000_000_000).unwrap(),
        }
    }

    #[test]
    fn should_be_bad_when_the_version_is_too_old() {
        assert_eq!(server().version().condition, Condition::Good);
        let old = Server {
            version: 130_012,
            version_name: "13.12".to_owned(),
            ..server()
        };
        let finding = old.version();
        assert_eq!(finding.condition, Condition::Bad);
        assert!(finding.found.contains("13.12"), "{finding:?}");
        assert!(finding.fix.is_some_and(|fix| fix.contains("14")));
    }

    #[test]
    fn should_not_blame_the_clock_for_the_time_that_the_call_took() {
        let server = server();
        let second = Duration::from_secs(1);
        for (asked, took, condition) in [
            (server.now, Duration::ZERO, Condition::Good),
            (server.now - 20 * second, 40 * second, Condition::Good),
            (server.now + 2 * second, Duration::ZERO, Condition::Doubtful),
            (server.now - 20 * second, 10 * second, Condition::Doubtful),
        ] {
            assert_eq!(server.clock(asked, took).condition, condition, "{asked} {took:?}");
        }
    }

    #[test]
    fn should_be_bad_when_a_crash_may_lose_what_was_committed() {
        let commits = "off".to_owned();
        for (server, word) in [
            (
                Server {
                    syncs: false,
                    ..server()
                },
                "fsync",
            ),
            (
                Server {
                    writes_pages: false,
                    ..server()
                },
                "full_page_writes",
            ),
            (Server { commits, ..server() }, "synchronous_commit"),
        ] {
            let finding = server.durable();
            assert_eq!(finding.condition, Condition::Bad);
            assert!(finding.fix.is_some_and(|fix| fix.contains(word)));
        }
    }
}
