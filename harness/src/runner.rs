//! The suites of a provider as a test program.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{Arc, Mutex, PoisonError},
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{
    capabilities,
    case::{Case, Verdict},
    fixture::{Fixture, TransportFixture},
    report::{CaseReport, Report, State},
    run::{Outcome, run_case},
    services::Required,
    transport,
};

/// The suites that a provider is held to.
#[derive(Debug)]
pub struct Suites {
    provider: &'static str,
    reported: bool,
    required: bool,
    at_once: Option<usize>,
    trials: Vec<Trial>,
    seen: Arc<Mutex<Seen>>,
}

/// What the cases of a run have shown so far.
#[derive(Debug, Default)]
struct Seen {
    version: Option<String>,
    /// By their place in the suites.
    cases: BTreeMap<usize, CaseReport>,
    expected: usize,
}

impl Suites {
    /// No suites yet for the provider of this name, which is also the name of its service in
    /// `HEADLESS_REQUIRE_SERVICES`.
    #[must_use]
    pub fn of(provider: &'static str) -> Self {
        Self {
            provider,
            reported: true,
            required: Required::from_list(env::var("HEADLESS_REQUIRE_SERVICES").ok().as_deref())
                .has(provider),
            at_once: None,
            trials: Vec::new(),
            seen: Arc::default(),
        }
    }

    /// Writes no report: for a run of suites that stands for no provider.
    #[must_use]
    pub const fn unreported(mut self) -> Self {
        self.reported = false;
        self
    }

    /// Runs this many cases at once unless `--test-threads` says otherwise: more than there are processors, for a
    /// provider whose cases wait for its server most of the time. Each takes its own connections.
    #[must_use]
    pub const fn at_once(mut self, cases: usize) -> Self {
        self.at_once = Some(cases);
        self
    }

    /// The suite of [`Transport`](headless_abstractions::Transport) and
    /// [`Subscriber`](headless_abstractions::Subscriber).
    #[must_use]
    pub fn transport<F: TransportFixture>(self) -> Self {
        self.suite("transport", transport::cases::<F>())
    }

    /// Holds the transport's run-time flags against this provider's section of a Markdown page, such as
    /// `docs/capabilities.md`: turning one off is then a visible change.
    #[must_use]
    pub fn capabilities<F: TransportFixture>(mut self, page: &'static str) -> Self {
        let (provider, required) = (self.provider, self.required);
        self.trials.push(Trial::ignorable_test(
            "capabilities::should_equal_the_table",
            move || match capabilities::compare::<F>(provider, page) {
                Outcome::Judged(_) => Ok(Completion::Completed),
                Outcome::Absent(why) => absent(why, required),
                Outcome::Failed(what) => Err(what.into()),
            },
        ));
        self
    }

    pub(crate) fn suite<F: Fixture>(mut self, suite: &'static str, cases: Vec<Case<F>>) -> Self {
        for case in cases {
            let place = {
                let mut seen = lock(&self.seen);
                seen.expected += 1;
                seen.expected
            };
            let (seen, required) = (self.seen.clone(), self.required);
            self.trials.push(Trial::ignorable_test(
                format!("{suite}::{}", case.name),
                move || {
                    let run = run_case::<F, F>(&case, |fixture| fixture);
                    let mut seen = lock(&seen);
                    seen.version = run.version.or(seen.version.take());
                    let (state, reason) = state(&run.outcome);
                    seen.cases.insert(
                        place,
                        CaseReport {
                            suite: suite.to_owned(),
                            name: case.name.to_owned(),
                            proves: case.proves.to_owned(),
                            state,
                            reason,
                        },
                    );
                    drop(seen);
                    complete(run.outcome, required)
                },
            ));
        }
        self
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn state(outcome: &Outcome) -> (State, Option<String>) {
    match outcome {
        Outcome::Judged(Verdict::Proved) => (State::Proved, None),
        Outcome::Judged(Verdict::Refused) => (State::Refused, None),
        Outcome::Judged(Verdict::Unproved(why)) | Outcome::Absent(why) => {
            (State::Unproved, Some(why.clone()))
        }
        Outcome::Failed(what) => (State::Failed, Some(what.clone())),
    }
}

fn complete(outcome: Outcome, required: bool) -> Result<Completion, Failed> {
    match outcome {
        Outcome::Judged(Verdict::Proved | Verdict::Refused) => Ok(Completion::Completed),
        Outcome::Judged(Verdict::Unproved(why)) => Ok(Completion::ignored_with(why)),
        Outcome::Absent(why) => absent(why, required),
        Outcome::Failed(what) => Err(what.into()),
    }
}

fn absent(why: String, required: bool) -> Result<Completion, Failed> {
    if required {
        Err(format!("required by HEADLESS_REQUIRE_SERVICES: {why}").into())
    } else {
        Ok(Completion::ignored_with(why))
    }
}

/// Runs the suites as a test program does, with its usual arguments. A run of all of them writes
/// `target/conformance/<provider>.json`.
#[must_use]
pub fn run(suites: Suites) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(suites.at_once);
    let conclusion = libtest_mimic::run(&arguments, suites.trials);
    let seen = std::mem::take(&mut *lock(&suites.seen));
    if suites.reported && !seen.cases.is_empty() && seen.cases.len() == seen.expected {
        let report = Report {
            provider: suites.provider.to_owned(),
            version: seen.version.unwrap_or_else(|| "unknown".to_owned()),
            commit: commit(),
            cases: seen.cases.into_values().collect(),
        };
        if let Err(error) = write(&report) {
            // A run whose evidence is lost has not done what it is for.
            let _written = io::Write::write_all(
                &mut io::stderr(),
                format!("the conformance report was not written: {error}\n").as_bytes(),
            );
            return ExitCode::FAILURE;
        }
    }
    conclusion.exit_code()
}

fn write(report: &Report) -> io::Result<()> {
    let folder = target_folder()?.join("conformance");
    fs::create_dir_all(&folder)?;
    let json = serde_json::to_string_pretty(report)?;
    fs::write(folder.join(format!("{}.json", report.provider)), json)
}

/// The target folder that this program was built into: cargo marks it.
fn target_folder() -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .map(Path::to_owned)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("no target folder above {}", program.display()),
            )
        })
}

fn commit() -> String {
    Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_fail_when_a_required_service_is_absent() {
        assert!(complete(Outcome::Absent("no nats".to_owned()), true).is_err());
        assert!(complete(Outcome::Absent("no nats".to_owned()), false).is_ok());
    }

    #[test]
    fn should_find_the_target_folder_when_run_by_cargo() {
        assert!(target_folder().unwrap().join("CACHEDIR.TAG").is_file());
    }
}
