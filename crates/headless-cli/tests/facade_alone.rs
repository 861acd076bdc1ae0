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

/// The words of the code; comments are left out.
fn words(code: &str) -> BTreeSet<&str> {
    code.lines()
        .map(|line| line.split("//").next().unwrap())
        .flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .collect()
}

#[test]
fn should_be_under_three_hundred_lines_when_all_of_the_demo_is_counted() {
    let mut files = sources(&crate_root().join("src/demo"));
    files.push(crate_root().join("src/demo.rs"));
    assert!(files.len() > 2, "{files:?}");
    let count = |path: &PathBuf| fs::read_to_string(path).unwrap().lines().count();
    let lines: usize = files.iter().map(count).sum();
    assert!((100..300).contains(&lines), "{lines} lines");
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
