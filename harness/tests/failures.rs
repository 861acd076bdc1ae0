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

/// The names of all functions in the sources of this workspace.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let names = text.lines().filter_map(|line| {
                let (_, after) = line.split_once("fn ")?;
                Some(after.split(['(', '<']).next()?.to_owned())
            });
            found.extend(names);
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
        functions(&root().join(folder), &mut known);
    }
    let rows = named();
    assert!(rows.len() > 30, "the page's tables are read: {}", rows.len());
    for (row, cases) in rows {
        assert!(!cases.is_empty(), "no case is named: {row}");
        for case in cases {
            assert!(known.contains(&case), "{case} does not exist: {row}");
        }
    }
}
