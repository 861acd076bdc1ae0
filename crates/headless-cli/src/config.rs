//! `headless config`: every setting that a configuration comes to, and where each came from.

use std::{
    env,
    io::{self, Write},
};

use anyhow::Result;
use headless::{Config, Headless, Setting};
use serde::Serialize;

use crate::{bad_input::BadInput, cli::ConfigArgs};

/// A setting as it is printed.
#[derive(Serialize)]
struct Printed<'a> {
    name: &'a str,
    value: &'a str,
    source: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    settings: Vec<Printed<'a>>,
}

/// Prints every setting, unless the configuration is refused. It connects to nothing.
pub(crate) fn run(args: &ConfigArgs) -> Result<()> {
    let config = match &*args.files {
        [] => Config::from_env(),
        files => files
            .iter()
            .fold(Config::new(), Config::with_file)
            .with_variables(env::vars_os()),
    };
    let builder = Headless::from_config(&config);
    builder
        .check()
        .map_err(|error| BadInput::new(error.to_string()))?;
    let settings = builder.explain();
    let mut out = io::stdout().lock();
    if args.json {
        let settings = settings.iter().map(printed).collect();
        writeln!(out, "{}", serde_json::to_string(&Answer { settings })?)?;
    } else {
        for setting in &settings {
            writeln!(out, "{setting}")?;
        }
    }
    Ok(())
}

fn printed(setting: &Setting) -> Printed<'_> {
    Printed {
        name: &setting.name,
        value: &setting.value,
        source: setting.source.to_string(),
    }
}
