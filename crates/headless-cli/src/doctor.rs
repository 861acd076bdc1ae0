//! `headless doctor`: what a service would meet, and what to do about it.

use std::{
    env,
    io::{self, Write},
    sync::Arc,
};

use anyhow::Result;
use headless::{Condition, Config, Examination, Finding, Headless, Providers, SystemClock};
use serde::Serialize;

use crate::{bad_input::BadInput, cli::DoctorArgs, text, urls};

/// A finding as it is printed.
#[derive(Serialize)]
struct Printed<'a> {
    check: &'a str,
    condition: &'a str,
    found: &'a str,
    fix: Option<&'a str>,
}

#[derive(Serialize)]
struct Server<'a> {
    endpoint: &'a str,
    condition: &'a str,
    findings: Vec<Printed<'a>>,
}

#[derive(Serialize)]
struct Answer<'a> {
    servers: Vec<Server<'a>>,
}

/// Looks at each server; says whether a service could run on all of them.
pub(crate) async fn run(args: &DoctorArgs) -> Result<bool> {
    let examinations = if args.store.is_some() || args.transport.is_some() {
        by_url(args).await?
    } else {
        by_configuration(args).await?
    };
    let mut out = io::stdout().lock();
    if args.json {
        let servers = examinations.iter().map(server).collect();
        writeln!(out, "{}", serde_json::to_string(&Answer { servers })?)?;
    } else {
        for examination in &examinations {
            write(&mut out, examination)?;
        }
    }
    Ok(examinations.iter().all(|each| each.worst() < Condition::Bad))
}

async fn by_url(args: &DoctorArgs) -> Result<Vec<Examination>> {
    let providers = Providers::builtin();
    let transport = args
        .transport
        .as_ref()
        .filter(|url| args.store.as_ref() != Some(url));
    let mut examinations = Vec::new();
    for (flag, url) in [(urls::STORE, args.store.as_ref()), (urls::TRANSPORT, transport)] {
        if let Some(url) = url {
            let examined = providers.examine(url, Arc::new(SystemClock::new())).await;
            examinations.push(examined.map_err(urls::wrong(flag))?);
        }
    }
    Ok(examinations)
}

async fn by_configuration(args: &DoctorArgs) -> Result<Vec<Examination>> {
    let config = match &*args.files {
        [] => Config::from_env(),
        files => files
            .iter()
            .fold(Config::new(), Config::with_file)
            .with_variables(env::vars_os()),
    };
    let builder = Headless::from_config(&config);
    let examinations = builder.examine().await;
    let examinations = examinations.map_err(|error| BadInput::new(error.to_string()))?;
    if examinations.is_empty() {
        return Err(BadInput::new(
            "nothing to look at: name a server with --store or --transport, or a configuration with --file",
        )
        .into());
    }
    Ok(examinations)
}

fn server(examination: &Examination) -> Server<'_> {
    Server {
        endpoint: &examination.endpoint,
        condition: examination.worst().as_str(),
        findings: examination.findings.iter().map(printed).collect(),
    }
}

fn printed(finding: &Finding) -> Printed<'_> {
    Printed {
        check: finding.check.as_str(),
        condition: finding.condition.as_str(),
        found: &finding.found,
        fix: finding.fix.as_deref(),
    }
}

fn write(out: &mut impl Write, examination: &Examination) -> io::Result<()> {
    writeln!(out, "{}", examination.endpoint)?;
    for finding in &examination.findings {
        let Finding {
            check,
            condition,
            found,
            fix,
            ..
        } = finding;
        writeln!(out, "  {condition:<9} {check:<10} {}", text::line(found))?;
        if let Some(fix) = fix {
            writeln!(out, "  {:<9} {:<10} {}", "", "do:", text::line(fix))?;
        }
    }
    Ok(())
}
