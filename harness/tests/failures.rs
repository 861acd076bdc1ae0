//! The page of failures names cases, and each of them exists.

#![expect(clippy::unwrap_used, reason = "without the sources nothing can be shown")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use headless_core::CrashPoint;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What stands between backquotes in the last column of the page's tables, by row.
fn named() -> Vec<(String, Vec<String>)> {
    let page = fs::read_to_string(root().join("docs/failures.md")).unwrap();
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.contains("---"));
    rows.map(|row| {
        let cases = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names = cases.split('`').skip(1).step_by(2).map(str::to_owned);
        (row.to_owned(), names.collect())
    })
    .filter(|(row, _)| !row.ends_with("| cases |") && !row.ends_with("| case |"))
    .collect()
}

/// The names of all tests and cases in the sources of this workspace: functions that a test attribute precedes, and those
/// that stand on a line of their own in the list of a suite.
fn proofs(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            proofs(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    is_test = true;
                } else if let Some((_, after)) = line.split_once("fn ") {
                    if is_test {
                        found.extend(after.split(['(', '<']).next().map(str::to_owned));
                    }
                    is_test = false;
                } else if let Some(name) = line.strip_suffix(',')
                    && name.starts_with("should_")
                {
                    found.insert(name.to_owned());
                }
            }
        }
    }
}

#[test]
fn should_exist_when_a_case_is_named_on_the_page() {
    let mut known: BTreeSet<String> = CrashPoint::ALL
        .iter()
        .map(|point| point.name().to_owned())
        .collect();
    known.insert("CrashPoint".to_owned());
    for folder in ["crates", "harness"] {
        proofs(&root().join(folder), &mut known);
    }
    let rows = named();
    assert!(!known.contains("proofs"), "only tests and cases are proofs");
    assert!(rows.len() > 30, "the page's tables are read: {}", rows.len());
    for (row, cases) in rows {
        assert!(!cases.is_empty(), "no case is named: {row}");
        for case in cases {
            assert!(known.contains(&case), "{case} does not exist: {row}");
        }
    }
}
