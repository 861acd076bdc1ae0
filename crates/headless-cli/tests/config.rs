//! `headless config` as its users see it.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{fs, process::Command};

use serde_json::Value;
use tempfile::TempDir;

/// Runs the command with these variables alone: they are data for a child, and this process keeps its own.
fn config(args: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_headless"))
        .arg("config")
        .args(args)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn file(folder: &TempDir, text: &str) -> String {
    let path = folder.path().join("orders.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const SOUND: &str =
    "service = \"orders\"\nnode = \"a\"\nstore.url = \"postgres://app:hunter2@nowhere.invalid/db\"\n";

#[test]
fn should_print_every_setting_and_its_place_without_connecting_when_it_is_sound() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, SOUND);
    let batch = ("HEADLESS__RELAY__BATCH", "7");
    for (args, variables) in [
        (vec!["--file", &path], vec![batch]),
        (vec![], vec![batch, ("HEADLESS__CONFIG", &path)]),
    ] {
        let (code, stdout, stderr) = config(&args, &variables);
        assert_eq!((code, &*stderr), (0, ""));
        for line in [
            &format!("service = orders (file {path}, line 1)"),
            &format!("store = postgres://nowhere.invalid (file {path}, line 3)"),
            "relay.batch = 7 (variable HEADLESS__RELAY__BATCH)",
            "relay.poll = 1 s (default)",
        ] {
            assert!(
                stdout.lines().any(|printed| printed == line),
                "{stdout} lacks {line}"
            );
        }
        assert!(!stdout.contains("hunter2"), "{stdout}");
    }
    let (code, stdout, stderr) = config(&["--json", "--file", &path], &[batch]);
    assert_eq!((code, &*stderr), (0, ""));
    let printed: Value = serde_json::from_str(&stdout).unwrap();
    let settings = printed["settings"].as_array().unwrap();
    let batch = settings
        .iter()
        .find(|setting| setting["name"] == "relay.batch")
        .unwrap();
    assert_eq!(batch["value"], "7");
    assert_eq!(batch["source"], "variable HEADLESS__RELAY__BATCH");
}

#[test]
fn should_end_with_two_and_report_everything_when_it_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(
        &folder,
        &format!("{SOUND}relay.bacth = 1\npurge.batch = 0\ntransport.url = \"nats://h\"\n"),
    );
    let (code, stdout, stderr) = config(&["--file", &path], &[("HEADLESS__KEEP__MARKS", "0 s")]);
    assert_eq!((code, &*stdout), (2, ""));
    for problem in [
        &format!("relay.bacth (file {path}, line 4) is unknown: do you mean relay.batch?"),
        &format!("purge.batch is 0 (file {path}, line 5), the least is 1"),
        "keep.marks is 0 s (variable HEADLESS__KEEP__MARKS), the least is 10 ms",
        "the feature \"nats\"",
    ] {
        assert!(stderr.contains(problem), "{stderr} lacks {problem:?}");
    }
    assert!(!stderr.contains("hunter2"), "{stderr}");
    let (code, _, stderr) = config(&[], &[]);
    assert_eq!(code, 2);
    assert!(stderr.contains("service is not set"), "{stderr}");
    let (code, _, stderr) = config(&["--file", "/no/such/file"], &[]);
    assert_eq!(code, 2);
    assert!(stderr.contains("/no/such/file"), "{stderr}");
}
