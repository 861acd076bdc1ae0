//! The demo shows what an application writes: it stays small, and knows the facade alone.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The Rust files of a folder and of those below it.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

fn crate_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// How many lines these files of the demo have.
fn lines(files: &[&str]) -> usize {
    let read = |file: &&str| fs::read_to_string(crate_root().join("src").join(file)).unwrap();
    files.iter().map(|file| read(file).lines().count()).sum()
}

/// The words of the code; comments are left out.
fn words(code: &str) -> BTreeSet<&str> {
    code.lines()
        .map(|line| line.split("//").next().unwrap())
        .flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .collect()
}

/// What an application writes: topic, publisher, consumer, and its own rows.
const APPLICATION: [&str; 3] = ["demo.rs", "demo/books.rs", "demo/member.rs"];
/// What only a trial of one needs: members that are taken away, and the figures.
const TRIAL: [&str; 2] = ["demo/crew.rs", "demo/report.rs"];

#[test]
fn should_be_under_three_hundred_lines_when_it_is_what_an_application_writes() {
    let (application, trial) = (lines(&APPLICATION), lines(&TRIAL));
    assert!((100..300).contains(&application), "{application} lines");
    assert!((100..200).contains(&trial), "{trial} lines");
    let files = sources(&crate_root().join("src/demo"));
    assert_eq!(files.len() + 1, APPLICATION.len() + TRIAL.len(), "{files:?}");
}

#[test]
fn should_know_the_facade_alone_when_it_is_the_command() {
    let abstractions = sources(&crate_root().join("../headless-abstractions/src"));
    let code: String = abstractions
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let traits: BTreeSet<&str> = code
        .lines()
        .filter_map(|line| line.strip_prefix("pub trait "))
        .map(|line| line.split(|c: char| !c.is_alphanumeric()).next().unwrap())
        .collect();
    for known in ["OutboxStore", "Transport", "Store", "StoreTx"] {
        assert!(traits.contains(known), "{traits:?} lacks {known}");
    }
    let crates = [
        "headless_abstractions",
        "headless_core",
        "headless_messaging",
        "headless_memory",
        "headless_postgres",
    ];
    for path in sources(&crate_root().join("src")) {
        let code = fs::read_to_string(&path).unwrap();
        let words = words(&code);
        for forbidden in traits.iter().chain(&crates) {
            assert!(!words.contains(forbidden), "{} knows {forbidden}", path.display());
        }
    }
}
