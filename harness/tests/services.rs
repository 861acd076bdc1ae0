//! The servers of one's own, on this machine: each promise of their handles, seen from outside with `psql`, the
//! kernel's list of processes and the folder.

#![expect(clippy::unwrap_used, reason = "tests of what the machine does")]

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    num::NonZero,
    os::unix::fs::{FileTypeExt, MetadataExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use headless_harness::{
    FaultProxy, Unavailable,
    services::{
        PrivatePgbouncer, PrivatePostgres, Stop, is_required, private_pgbouncer, private_postgres,
        private_postgres_standby,
    },
};
use libtest_mimic::{Arguments, Completion, Trial};

/// What must come, comes within this time.
const PATIENCE: Duration = Duration::from_secs(30);
/// What must not come is looked for for this long.
const QUIET: Duration = Duration::from_millis(500);
/// Makes this program the victim of a test, instead of running tests.
const VICTIM: &str = "--hold-a-server-until-killed";

/// Why a test has not passed, where it did not panic.
enum Ended {
    Absent(String),
    Failed(String),
}

type Tested = Result<(), Ended>;

impl From<Unavailable> for Ended {
    fn from(why: Unavailable) -> Self {
        match why {
            Unavailable::Absent(why) => Self::Absent(why),
            other => Self::Failed(format!("{other:?}")),
        }
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Runs `psql` with a file of `tests/services`; what it prints, or what it complains of.
fn psql(url: &str, query: &str) -> Result<Result<String, String>, Ended> {
    let output = psql_command(url, query)?.output()?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
    Ok(if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    })
}

fn psql_command(url: &str, query: &str) -> Result<Command, Ended> {
    let mut command = open_psql(url)?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/services")
        .join(query);
    command.arg("--file").arg(file).stdin(Stdio::null());
    Ok(command)
}

fn open_psql(url: &str) -> Result<Command, Ended> {
    match Command::new("psql").arg("--version").output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Ended::Absent("no psql to ask the server with".to_owned()));
        }
        other => other?,
    };
    let mut command = Command::new("psql");
    command
        .args([
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "--quiet",
            "--no-password",
        ])
        .args(["--set", "ON_ERROR_STOP=1", "--dbname", url])
        .env("LC_ALL", "C")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

#[expect(clippy::disallowed_methods, reason = "processes run in the machine's time")]
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[expect(clippy::disallowed_methods, reason = "processes run in the machine's time")]
fn never_within(time: Duration, what: &str, mut look: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while began.elapsed() < time {
        assert!(!look(), "{what}, after {:?}", began.elapsed());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn ended_well(mut child: Child) {
    let status = eventually("psql ends", || child.try_wait().unwrap());
    let mut complaint = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut complaint)
        .unwrap();
    assert!(status.success(), "{complaint}");
}

/// The processes that work in a folder, with their states.
fn processes_in(folder: &Path) -> Vec<(u32, char)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that has ended since is not there.
        let (Ok(cwd), Ok(stat)) = (
            fs::read_link(entry.path().join("cwd")),
            fs::read(entry.path().join("stat")),
        ) else {
            continue;
        };
        let stat = String::from_utf8_lossy(&stat).into_owned();
        let state = stat.rsplit_once(") ").unwrap().1.chars().next().unwrap();
        if cwd.starts_with(folder) {
            found.push((pid, state));
        }
    }
    found
}

fn folder_of(server: &PrivatePostgres) -> PathBuf {
    server.data_dir().parent().unwrap().to_owned()
}

fn is_gone(folder: &Path) {
    assert!(!folder.exists(), "{} is still there", folder.display());
    assert_eq!(processes_in(folder), []);
}

fn should_answer_with_its_settings_when_started() -> Tested {
    let server = PrivatePostgres::builder()
        .setting("max_connections", "20")
        .setting("max_connections", "25")
        .start()?;
    let data = server.data_dir();
    assert_eq!(
        psql(&server.url(), "settings.sql")?.unwrap(),
        format!("25 on {}", data.display())
    );
    assert!(
        server
            .log()
            .contains("database system is ready to accept connections")
    );
    let socket = folder_of(&server).join(format!(".s.PGSQL.{}", server.port()));
    assert!(fs::metadata(socket)?.file_type().is_socket());
    assert_ne!(fs::metadata(&data)?.uid(), 0, "it runs as root");
    Ok(())
}

fn should_stand_beside_others_when_several_are_started() -> Tested {
    let (one, other) = (private_postgres()?, private_postgres()?);
    assert_ne!(one.port(), other.port());
    psql(&one.url(), "keep.sql")?.unwrap();
    assert!(
        psql(&other.url(), "kept.sql")?
            .unwrap_err()
            .contains("does not exist")
    );
    drop(one);
    assert_eq!(psql(&other.url(), "answer.sql")?.unwrap(), "up");
    Ok(())
}

fn should_connect_to_the_named_database_when_asked_for_its_url() -> Tested {
    let server = private_postgres()?;
    psql(&server.url(), "database.sql")?.unwrap();
    let url = server.url_for("odd/name");
    assert_eq!(psql(&url, "connected_to.sql")?.unwrap(), "odd/name");
    let refused = psql(&server.url_for("none"), "answer.sql")?.unwrap_err();
    assert!(refused.contains("does not exist"), "{refused}");
    Ok(())
}

fn should_keep_its_data_when_stopped_and_started() -> Tested {
    let mut server = private_postgres()?;
    let url = server.url();
    let mut expected = String::new();
    for how in [Stop::Fast, Stop::Immediate] {
        psql(&url, "keep.sql")?.unwrap();
        expected = if expected.is_empty() {
            "kept".to_owned()
        } else {
            format!("{expected},kept")
        };
        server.stop(how)?;
        server.stop(how)?;
        let refused = TcpStream::connect(("127.0.0.1", server.port())).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(processes_in(&server.data_dir()), []);
        server.start()?;
        server.start()?;
        assert_eq!(server.url(), url);
        assert_eq!(psql(&url, "kept.sql")?.unwrap(), expected);
    }
    // Only the second one left something to recover.
    assert_eq!(server.log().matches("was not properly shut down").count(), 1);
    server.restart()?;
    assert_eq!(psql(&url, "kept.sql")?.unwrap(), expected);
    Ok(())
}

fn should_close_connections_when_stopped() -> Tested {
    for how in [Stop::Fast, Stop::Immediate] {
        let mut server = private_postgres()?;
        let mut session = Session::open(&server.url())?;
        session.backend();
        server.stop(how)?;
        assert!(session.try_backend().is_none());
    }
    Ok(())
}

fn should_stand_still_when_paused() -> Tested {
    let mut server = private_postgres()?;
    let data = server.data_dir();
    let mut session = Session::open(&server.url())?;
    session.backend();
    server.pause()?;
    let processes = processes_in(&data);
    assert!(processes.len() >= 5, "{processes:?}");
    assert!(processes.iter().all(|(_, state)| *state == 'T'), "{processes:?}");
    // Accepted by the kernel, answered by nobody.
    let mut waiting = psql_command(&server.url(), "answer.sql")?.spawn()?;
    never_within(QUIET, "a paused server answered", || {
        waiting.try_wait().unwrap().is_some()
    });
    server.resume()?;
    ended_well(waiting);
    session.backend();
    assert!(processes_in(&data).iter().all(|(_, state)| *state != 'T'));
    Ok(())
}

fn should_stop_and_start_when_it_was_paused() -> Tested {
    let mut server = private_postgres()?;
    for how in [Stop::Immediate, Stop::Fast] {
        server.pause()?;
        server.stop(how)?;
        assert!(server.pause().is_err());
        server.start()?;
        assert_eq!(psql(&server.url(), "answer.sql")?.unwrap(), "up");
    }
    Ok(())
}

fn should_leave_nothing_when_dropped() -> Tested {
    let server = private_postgres()?;
    let mut session = Session::open(&server.url())?;
    session.backend();
    let folder = folder_of(&server);
    assert!(!processes_in(&folder).is_empty());
    drop(server);
    is_gone(&folder);

    let mut paused = private_postgres()?;
    let folder = folder_of(&paused);
    paused.pause()?;
    drop(paused);
    is_gone(&folder);

    let mut stopped = private_postgres()?;
    let folder = folder_of(&stopped);
    stopped.stop(Stop::Fast)?;
    drop(stopped);
    is_gone(&folder);
    Ok(())
}

fn should_leave_nothing_when_the_test_panics() -> Tested {
    let server = private_postgres()?;
    let folder = folder_of(&server);
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _server = server;
        // Without the hook, which would print it.
        std::panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(panicked.is_err());
    is_gone(&folder);
    Ok(())
}

fn should_leave_nothing_when_the_test_program_is_killed() -> Tested {
    drop(private_postgres()?);
    let mut victim = Command::new(env::current_exe()?)
        .arg(VICTIM)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut folders = String::new();
    BufReader::new(victim.stdout.take().unwrap()).read_line(&mut folders)?;
    let folders: Vec<&Path> = folders.split_whitespace().map(Path::new).collect();
    assert_eq!(folders.len(), 2);
    assert!(folders.iter().all(|folder| !processes_in(folder).is_empty()));
    victim.kill()?;
    victim.wait()?;
    for folder in folders {
        eventually("the folder is removed", || (!folder.exists()).then_some(()));
        is_gone(folder);
    }
    Ok(())
}

/// The other side of the test above: one server that runs and one that is paused, until it is killed.
fn hold_servers() -> Tested {
    let (running, mut paused) = (private_postgres()?, private_postgres()?);
    paused.pause()?;
    let line = format!(
        "{} {}\n",
        folder_of(&running).display(),
        folder_of(&paused).display()
    );
    io::stdout().write_all(line.as_bytes())?;
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn should_ask_for_the_password_when_it_has_one() -> Tested {
    let server = PrivatePostgres::builder()
        .password("p@ss:/%' w\u{f6}rd")
        .start()?;
    assert_eq!(psql(&server.url(), "answer.sql")?.unwrap(), "up");
    let wrong = format!("postgres://postgres:wrong@127.0.0.1:{}/postgres", server.port());
    let refused = psql(&wrong, "answer.sql")?.unwrap_err();
    assert!(refused.contains("password authentication failed"), "{refused}");
    let none = format!("postgres://postgres@127.0.0.1:{}/postgres", server.port());
    assert!(psql(&none, "answer.sql")?.is_err());
    assert!(!format!("{server:?}").contains("p@ss"));
    Ok(())
}

fn should_say_why_when_it_cannot_be_started() -> Tested {
    private_postgres()?;
    let started = PrivatePostgres::builder()
        .setting("max_connections", "many")
        .start();
    let Err(Unavailable::Broken(why)) = started else {
        panic!("{started:?}");
    };
    assert!(
        why.contains("invalid value for parameter \"max_connections\""),
        "{why}"
    );
    let Err(Unavailable::Broken(why)) = PrivatePostgres::builder().password("two\nlines").start() else {
        panic!("two lines are no password");
    };
    assert!(why.contains("one line of text") && !why.contains("two"), "{why}");
    Ok(())
}

fn should_be_in_recovery_and_follow_when_it_is_a_standby() -> Tested {
    let primary = PrivatePostgres::builder()
        .password("s3cret'")
        .setting("max_connections", "120")
        .start()?;
    psql(&primary.url(), "keep.sql")?.unwrap();
    let mut standby = private_postgres_standby(&primary)?;
    assert_eq!(psql(&standby.url(), "recovery.sql")?.unwrap(), "t");
    assert_eq!(psql(&standby.url(), "kept.sql")?.unwrap(), "kept");
    let refused = psql(&standby.url(), "keep.sql")?.unwrap_err();
    assert!(refused.contains("read-only transaction"), "{refused}");
    psql(&primary.url(), "keep.sql")?.unwrap();
    eventually("the standby follows", || {
        let kept = psql(&standby.url(), "kept.sql").ok()?.unwrap();
        (kept == "kept,kept").then_some(())
    });
    standby.restart()?;
    assert_eq!(psql(&standby.url(), "recovery.sql")?.unwrap(), "t");
    let folder = folder_of(&standby);
    drop(primary);
    assert_eq!(psql(&standby.url(), "kept.sql")?.unwrap(), "kept,kept");
    drop(standby);
    is_gone(&folder);
    Ok(())
}

/// A client that stays connected.
struct Session {
    psql: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Session {
    fn open(url: &str) -> Result<Self, Ended> {
        let mut psql = open_psql(url)?.stdin(Stdio::piped()).spawn()?;
        let answers = BufReader::new(psql.stdout.take().unwrap());
        Ok(Self { psql, answers })
    }

    /// Which of the server's processes it is served by.
    fn backend(&mut self) -> String {
        self.try_backend().unwrap()
    }

    /// `None` when it is connected no more.
    fn try_backend(&mut self) -> Option<String> {
        let question =
            fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/backend.sql")).unwrap();
        self.psql.stdin.as_mut()?.write_all(&question).ok()?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).ok()?;
        let answer = answer.trim().to_owned();
        (!answer.is_empty()).then_some(answer)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.psql.stdin.take());
        self.psql.wait().unwrap();
    }
}

fn should_share_one_connection_when_transactions_are_pooled() -> Tested {
    let server = PrivatePostgres::builder().password("a'b\\c d").start()?;
    let pool = PrivatePgbouncer::builder(&server.url())
        .pool_size(NonZero::<u16>::MIN)
        .start()?;
    let (mut one, mut other) = (Session::open(&pool.url())?, Session::open(&pool.url())?);
    let backend = one.backend();
    assert_eq!(other.backend(), backend);
    assert_eq!(one.backend(), backend);
    let (mut direct, mut second) = (Session::open(&server.url())?, Session::open(&server.url())?);
    assert_ne!(direct.backend(), second.backend());
    Ok(())
}

fn should_pool_each_database_when_asked_for_its_url() -> Tested {
    let server = private_postgres()?;
    let pool = private_pgbouncer(&server.url())?;
    assert_eq!(psql(&pool.url(), "connected_to.sql")?.unwrap(), "postgres");
    assert_eq!(
        psql(&pool.url_for("template1"), "connected_to.sql")?.unwrap(),
        "template1"
    );
    Ok(())
}

fn should_come_and_go_when_the_pool_is_stopped_paused_and_dropped() -> Tested {
    let server = private_postgres()?;
    let mut pool = private_pgbouncer(&server.url())?;
    let url = pool.url();
    for how in [Stop::Fast, Stop::Immediate] {
        assert_eq!(psql(&url, "answer.sql")?.unwrap(), "up");
        pool.stop(how)?;
        assert!(
            psql(&url, "answer.sql")?
                .unwrap_err()
                .contains("Connection refused")
        );
        pool.start()?;
    }
    pool.pause()?;
    let mut waiting = psql_command(&url, "answer.sql")?.spawn()?;
    never_within(QUIET, "a paused pool answered", || {
        waiting.try_wait().unwrap().is_some()
    });
    pool.resume()?;
    ended_well(waiting);
    pool.restart()?;
    assert!(pool.log().contains("process up"), "{}", pool.log());
    let port = pool.port();
    drop(pool);
    assert_eq!(
        TcpStream::connect(("127.0.0.1", port)).unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused
    );
    Ok(())
}

fn should_reach_the_server_through_a_fault_proxy() -> Tested {
    let server = private_postgres()?;
    let proxy = FaultProxy::in_front_of(&server.url())?;
    let url = proxy.url_for(&server.url())?;
    assert_eq!(psql(&url, "answer.sql")?.unwrap(), "up");
    let mut session = Session::open(&url)?;
    session.backend();
    proxy.reset();
    assert!(session.try_backend().is_none());
    assert!(psql(&url, "answer.sql")?.is_err());
    Ok(())
}

/// A test, which is ignored with its reason where a service is absent that is not required.
fn trial(name: &str, service: &'static str, test: fn() -> Tested) -> Trial {
    Trial::ignorable_test(name, move || match test() {
        Ok(()) => Ok(Completion::Completed),
        Err(Ended::Absent(why)) if !is_required(service) => Ok(Completion::ignored_with(why)),
        Err(Ended::Absent(why)) => Err(format!("required by HEADLESS_REQUIRE_SERVICES: {why}").into()),
        Err(Ended::Failed(what)) => Err(what.into()),
    })
}

macro_rules! trials {
    ($($service:literal: $($name:ident)*;)*) => {
        vec![$($(trial(concat!($service, "::", stringify!($name)), $service, $name)),*),*]
    };
}

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some(VICTIM) {
        return hold_servers().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let trials = trials! {
        "postgres":
            should_answer_with_its_settings_when_started
            should_stand_beside_others_when_several_are_started
            should_connect_to_the_named_database_when_asked_for_its_url
            should_keep_its_data_when_stopped_and_started
            should_close_connections_when_stopped
            should_stand_still_when_paused
            should_stop_and_start_when_it_was_paused
            should_leave_nothing_when_dropped
            should_leave_nothing_when_the_test_panics
            should_leave_nothing_when_the_test_program_is_killed
            should_ask_for_the_password_when_it_has_one
            should_say_why_when_it_cannot_be_started
            should_be_in_recovery_and_follow_when_it_is_a_standby
            should_reach_the_server_through_a_fault_proxy;
        "pgbouncer":
            should_share_one_connection_when_transactions_are_pooled
            should_pool_each_database_when_asked_for_its_url
            should_come_and_go_when_the_pool_is_stopped_paused_and_dropped;
    };
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
