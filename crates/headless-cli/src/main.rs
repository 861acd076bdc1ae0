//! The `headless` command.

mod bad_input;
mod cli;
mod config;
mod dead;
mod demo;
mod doctor;
mod groups;
mod input;
mod message;
mod migrate;
mod operator;
mod progress;
mod publish;
mod status;
mod survey;
mod tail;
mod text;
mod topics;
mod urls;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::Result;
use clap::{CommandFactory, Parser};
use tracing_subscriber::EnvFilter;

use crate::{
    bad_input::BadInput,
    cli::{Cli, Command, DemoArgs, DemoMemberArgs},
    operator::Answer,
};

/// What is logged unless RUST_LOG says otherwise. The AMQP client calls errors what the provider asks for and expects,
/// and shows the payloads of messages that come back; what goes wrong in earnest, the provider says itself.
const LOGGED: &str = "warn,lapin=off";

const FAILED: u8 = 1;
const WRONG: u8 = 2;
const UNSOUND: u8 = 3;
const PENDING: u8 = 3;
const IN_PART: u8 = 3;
const UNWELL: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new(LOGGED));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    run(cli.command).unwrap_or_else(|error| {
        complain(&error);
        ExitCode::from(if error.is::<BadInput>() { WRONG } else { FAILED })
    })
}

fn run(command: Command) -> Result<ExitCode> {
    let tokio = tokio::runtime::Runtime::new()?;
    let code = tokio.block_on(async {
        match command {
            Command::Completions(args) => completions(args.shell).map(|()| ExitCode::SUCCESS),
            Command::Config(args) => config::run(&args).map(|()| ExitCode::SUCCESS),
            Command::Dead(args) => dead::run(&args).await.map(code_of),
            Command::Demo(args) => demo(&args).await,
            Command::DemoMember(args) => demo_member(&args).await,
            Command::Doctor(args) => doctor::run(&args).await.map(|well| match well {
                true => ExitCode::SUCCESS,
                false => ExitCode::from(UNWELL),
            }),
            Command::Groups(args) => groups::run(&args).await.map(code_of),
            Command::Migrate(args) => migrate::run(&args).await.map(|up_to_date| match up_to_date {
                true => ExitCode::SUCCESS,
                false => ExitCode::from(PENDING),
            }),
            Command::Publish(args) => publish::run(&args).await.map(code_of),
            Command::Topics(args) => topics::run(&args).await.map(code_of),
            Command::Tail(args) => tail::run(&args).await.map(|()| ExitCode::SUCCESS),
            Command::Status(args) => status::run(&args).await.map(code_of),
        }
    });
    // Without waiting for a read of standard input, which nothing can end.
    tokio.shutdown_background();
    code
}

fn code_of(answer: Answer) -> ExitCode {
    match answer {
        Answer::Whole => ExitCode::SUCCESS,
        Answer::InPart => ExitCode::from(IN_PART),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<()> {
    // Made anew without what is hidden, which would be offered otherwise.
    let whole = Cli::command();
    let shown = whole.get_subcommands().filter(|one| !one.is_hide_set()).cloned();
    let mut command = clap::Command::new("headless").subcommands(shown);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "headless", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(())
}

async fn demo(args: &DemoArgs) -> Result<ExitCode> {
    let report = demo::run(args).await?;
    let figures = serde_json::to_string(&report)?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{figures}")?;
    } else {
        // Every figure is a number: commas and colons stand between them alone.
        for (name, figure) in figures.split(',').filter_map(|figure| figure.split_once(':')) {
            let name = name.trim_matches(['{', '"']).replace('_', " ");
            writeln!(out, "{name:<17}{:>12}", figure.trim_matches('}'))?;
        }
    }
    Ok(if report.is_sound() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(UNSOUND)
    })
}

async fn demo_member(args: &DemoMemberArgs) -> Result<ExitCode> {
    let told = demo::member(args).await?;
    writeln!(io::stdout().lock(), "{}", serde_json::to_string(&told)?)?;
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "where a command says why it failed")]
fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
