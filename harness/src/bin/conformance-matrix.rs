//! Writes `docs/conformance.md` from the reports of full runs, or with `--check` sees that it says what they say.

use std::{
    env,
    error::Error,
    ffi::OsStr,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use headless_harness::{Report, State, matrix, states_of};

const USAGE: &str = "usage: conformance-matrix [--check]";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let check = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--check"] => true,
        _ => return failed(USAGE),
    };
    match run(check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(why: &str) -> ExitCode {
    // Nothing is left to be told when standard error is closed.
    let _told = writeln!(io::stderr(), "{why}");
    ExitCode::FAILURE
}

fn run(check: bool) -> Result<(), Box<dyn Error>> {
    let root = workspace()?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let reports = reports(&target.join("conformance"))?;
    for report in &reports {
        if let Some(case) = report.cases.iter().find(|case| case.state == State::Failed) {
            let why = case.reason.as_deref().unwrap_or("no reason");
            let (provider, suite, name) = (&report.provider, &case.suite, &case.name);
            return Err(format!("{provider} fails {suite}::{name}: {why}").into());
        }
    }
    let path = root.join("docs/conformance.md");
    let page = matrix(&reports);
    if !check {
        return Ok(fs::write(path, page)?);
    }
    let committed = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if states_of(&committed) == states_of(&page) {
        return Ok(());
    }
    let differs = states_of(&committed)
        .lines()
        .zip(states_of(&page).lines())
        .find(|(committed, page)| committed != page)
        .map_or_else(
            || "one has lines that the other has not".to_owned(),
            |(committed, page)| format!("it says\n  {committed}\nand the runs say\n  {page}"),
        );
    Err(format!(
        "docs/conformance.md does not say what the runs showed: {differs}\nrun every provider's conformance test, \
         then `cargo run -p headless-harness --bin conformance-matrix`, and look at what changed"
    )
    .into())
}

/// The reports in the folder, by provider.
fn reports(folder: &Path) -> Result<Vec<Report>, Box<dyn Error>> {
    let entries = fs::read_dir(folder)
        .map_err(|error| format!("{}: {error}; run the conformance tests first", folder.display()))?;
    let mut reports = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("json")) {
            let report: Report = serde_json::from_str(&fs::read_to_string(&path)?)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            reports.push(report);
        }
    }
    if reports.is_empty() {
        return Err(format!(
            "no report in {}; run the conformance tests first",
            folder.display()
        )
        .into());
    }
    reports.sort_by(|a, b| a.provider.cmp(&b.provider));
    Ok(reports)
}

/// The nearest folder upwards that has a `Cargo.lock`.
fn workspace() -> io::Result<PathBuf> {
    let here = env::current_dir()?;
    here.ancestors()
        .find(|folder| folder.join("Cargo.lock").is_file())
        .map(Path::to_owned)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "run it within the workspace"))
}
