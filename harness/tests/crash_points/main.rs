//! The matrix of crash points: at each durable transition of publisher, relay, consumer, inbox and unit of work, of
//! operators and of purges, a member is taken away, fails, or stands still for longer than its leases, in memory and on
//! real servers. What is published is handled all the same, once and in order.
//!
//! Actions at points hold for a process, so each trial has processes of its own: this program, told what to be.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test: what must be there is there, and what was measured is printed"
)]

mod action;
mod in_memory;
mod judge;
mod leaving;
mod on_servers;
mod operator;
mod part;
mod place;
mod purging;
mod report;
mod slow;
mod workload;

use std::{env, process::ExitCode, sync::Arc, time::Duration};

use headless_core::CrashPoint;
use headless_harness::{Unavailable, services};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::{
    process::Command,
    runtime::{Builder, Runtime},
    time::timeout,
};

use self::{
    action::{Action, Spot, Style},
    on_servers::Worlds,
    part::{Manner, Part, Role},
    place::BoxError,
    report::{Report, Told},
};

/// How many trials run at once: they mostly wait, for leases to end and for members to stand still.
const AT_ONCE: usize = 8;
/// The place whose store is its transport too.
const ALONE: &str = "postgres";
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// The servers of a trial.
#[derive(Clone)]
enum Place {
    Memory,
    /// The servers behind these URLs, of a store and of a transport.
    Servers(&'static str, [String; 2], Arc<Worlds>),
    /// Why there are none, and whether there have to be.
    Missing(&'static str, String, bool),
}

impl Place {
    fn all() -> [Self; 3] {
        let servers = |name, needed: &[&str], found: Result<[String; 2], Unavailable>| match found {
            Ok(urls) => Self::Servers(name, urls, Arc::default()),
            Err(Unavailable::Absent(why)) => {
                let required = needed.iter().any(|needed| services::is_required(needed));
                Self::Missing(name, why, required)
            }
            Err(why) => Self::Missing(name, format!("{why:?}"), true),
        };
        let alone = services::postgres().map(|url| [url.clone(), url]);
        let both = services::postgres()
            .and_then(|postgres| services::rabbitmq().map(|rabbitmq| [postgres, rabbitmq]));
        [
            Self::Memory,
            servers(ALONE, &["postgres"], alone),
            servers("postgres+rabbitmq", &["postgres", "rabbitmq"], both),
        ]
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Servers(name, ..) | Self::Missing(name, ..) => name,
        }
    }

    /// Whether the trial is made here: on PostgreSQL alone no errors and delays, which core meets as it does where messages
    /// go through RabbitMQ.
    fn has(&self, spot: Spot) -> bool {
        self.name() != ALONE || spot.action == Action::Abort
    }

    fn trial(&self, style: Style, spot: Option<Spot>, report: &Arc<Report>) -> Trial {
        let name = spot.map_or_else(|| "nothing".to_owned(), |spot| spot.to_string());
        let name = format!("{}::{}::{name}", self.name(), style.name());
        let (place, report) = (self.clone(), report.clone());
        Trial::ignorable_test(name, move || {
            let told = match &place {
                Self::Missing(_, why, true) => return Err(why.into()),
                Self::Missing(_, why, false) => return Ok(Completion::ignored_with(why)),
                Self::Memory => runtime()?.block_on(in_a_process(style, spot, "careful")),
                Self::Servers(_, urls, worlds) => runtime()?.block_on(worlds.run(urls, style, spot)),
            };
            let told = told.map_err(|error| Failed::from(error.to_string()))?;
            report.note(place.name(), style, spot, &told);
            told.judged(style, spot)?;
            Ok(Completion::Completed)
        })
    }
}

/// A trial in memory.
async fn in_a_process(style: Style, spot: Option<Spot>, manner: &str) -> Result<Told, BoxError> {
    let spot = spot.map_or_else(|| "nothing".to_owned(), |spot| spot.to_string());
    let mut command = Command::new(env::current_exe()?);
    let output = command
        .args(["memory", style.name(), &spot, manner])
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, output).await??;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {said}", output.status).into());
    }
    let said = String::from_utf8(output.stdout)?;
    Ok(serde_json::from_str(said.lines().last().unwrap_or_default())?)
}

/// The trials notice what they are there for: an application that does it wrong is caught at a point.
fn caught(style: Style, manner: &'static str, at: &'static str, wrong: &'static str) -> Trial {
    let name = style.name();
    Trial::test(format!("memory::caught::{name}::{manner}::{at}"), move || {
        let spot = Spot::parse(at);
        let told = runtime()?.block_on(in_a_process(style, spot, manner));
        match told.map_err(|error| error.to_string())?.judged(style, spot) {
            Err(broken) if broken.contains(wrong) => Ok(()),
            other => Err(format!("not caught: {other:?}").into()),
        }
    })
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let told: Result<(), BoxError> = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["memory", style, spot, manner] => runtime().map_err(Into::into).and_then(|runtime| {
            let style = Style::parse(style).ok_or("no such style")?;
            let told = runtime.block_on(in_memory::run(style, Spot::parse(spot), Manner::parse(manner)))?;
            println!("{}", serde_json::to_string(&told)?);
            Ok(())
        }),
        ["member", store, transport, trial, style, spot, role] => {
            runtime().map_err(Into::into).and_then(|runtime| {
                let urls = [store.to_owned(), transport.to_owned()];
                let part = Part {
                    trial: trial.parse()?,
                    role: Role::parse(role).ok_or("no such role")?,
                    manner: Manner::Careful,
                    style: Style::parse(style).ok_or("no such style")?,
                    spot: Spot::parse(spot),
                };
                runtime.block_on(on_servers::member(&urls, part))
            })
        }
        _ => return matrix(),
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => panic!("{error}"),
    }
}

/// The trials in which nothing happens demand that their points are reached; so that each point is one of theirs.
fn every_point_is_broken() -> Result<(), Failed> {
    let broken: Vec<CrashPoint> = Style::ALL.into_iter().flat_map(Style::points).collect();
    let mut missed = CrashPoint::ALL.iter().filter(|point| !broken.contains(point));
    match missed.next() {
        Some(point) => Err(format!("{} is not broken in any trial", point.name()).into()),
        None => Ok(()),
    }
}

fn matrix() -> ExitCode {
    let report = Arc::new(Report::default());
    let done = "these were done";
    let mut trials = vec![
        caught(Style::Single, "effect_apart", "handler.committing::abort", done),
        caught(Style::Single, "note_first", "outbox.appending::abort", done),
        caught(Style::Single, "roll_back_late", "nothing", "was rolled back"),
        caught(Style::Single, "out_of_order", "nothing", "came after"),
        caught(Style::Single, "swallow", "nothing", "0 dead letters"),
        caught(Style::Single, "insist", "nothing", "times with line"),
        caught(Style::Batch, "first_alone", "nothing", done),
        caught(Style::Operator, "send_anew", "nothing", done),
        Trial::test("every_point_is_broken_in_a_trial", every_point_is_broken),
    ];
    let places = Place::all();
    for place in &places {
        for style in Style::ALL {
            trials.push(place.trial(style, None, &report));
            let spots = Spot::all(style).filter(|spot| place.has(*spot));
            trials.extend(spots.map(|spot| place.trial(style, Some(spot), &report)));
        }
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let listed = arguments.list;
    let conclusion = libtest_mimic::run(&arguments, trials);
    for place in places {
        if let Place::Servers(.., worlds) = place {
            let removed = runtime()
                .map_err(Into::into)
                .and_then(|runtime| runtime.block_on(worlds.remove()));
            removed.expect("the servers are still there");
        }
    }
    if !listed {
        print!("{report}");
    }
    conclusion.exit_code()
}
