//! The command as its users see it: output, figures and exit codes.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
};

use serde_json::{Value, json};
use tempfile::NamedTempFile;

struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

fn headless(args: &[&str], stdin: &str) -> Ended {
    let mut child = Command::new(env!("CARGO_BIN_EXE_headless"))
        .args(args)
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, text) = (child.stdin.take().unwrap(), stdin.to_owned());
    // On a thread of its own, since the child may fill its output before it has read everything. It may also end
    // without reading: that is for the test to judge, not for this write.
    let writing = thread::spawn(move || drop(input.write_all(text.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The figures of a demo that must end well.
fn figures(args: &[&str]) -> Value {
    let ended = headless(&[&["demo", "--json"], args].concat(), "");
    // Standard error may hold warnings: a member that is taken away leaves traces in the log.
    assert_eq!(ended.code, 0, "{} {}", ended.stdout, ended.stderr);
    serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap()
}

fn assert_figures(figures: &Value, wanted: &Value) {
    for (name, figure) in wanted.as_object().unwrap() {
        assert_eq!(&figures[name], figure, "{name} in {figures}");
    }
}

fn objects(stdout: &str) -> Vec<Value> {
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Sixty events, most of them on one key; five ids come twice.
fn events() -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    for n in 0..60 {
        let id = if n % 12 == 11 { n - 7 } else { n };
        let key = if n % 5 == 0 {
            format!("other-{}", n % 4)
        } else {
            "busy".to_owned()
        };
        let payload = json!({ "n": n, "text": "x".repeat(500 * n) });
        let event = json!({ "id": format!("id-{id}"), "event": "push", "action": null, "key": key, "payload": payload });
        writeln!(file, "{event}").unwrap();
    }
    file
}

#[test]
fn should_handle_everything_once_and_in_order_when_the_input_repeats_itself() {
    let file = events();
    let input = file.path().to_str().unwrap();
    let wanted = json!({ "lines": 60, "published": 60, "handled": 55, "duplicates": 5, "dead": 0, "lost": 0, "order_violations": 0 });
    assert_figures(&figures(&["--input", input]), &wanted);
    let crashed = figures(&["--input", input, "--crash-after", "20"]);
    assert_figures(&crashed, &wanted);
    assert_ne!(
        crashed["redelivered"], 0,
        "the member that was taken away held nothing: {crashed}"
    );
}

#[test]
fn should_handle_everything_once_and_in_order_when_orders_are_made_up() {
    let wanted = json!({ "published": 3_000, "handled": 3_000, "duplicates": 0, "dead": 0, "lost": 0, "order_violations": 0 });
    let args = ["--keys", "150", "--messages", "3000"];
    assert_figures(&figures(&args), &wanted);
    assert_figures(
        &figures(&[&args[..], &["--crash-after", "100"]].concat()),
        &wanted,
    );
}

#[test]
fn should_come_to_its_end_when_the_last_message_takes_its_member_away() {
    let figures = figures(&["--keys", "3", "--messages", "50", "--crash-after", "50"]);
    assert_figures(
        &figures,
        &json!({ "handled": 50, "lost": 0, "order_violations": 0 }),
    );
}

#[test]
fn should_print_every_figure_in_its_order_when_json_is_asked_for() {
    let ended = headless(&["demo", "--messages", "1", "--json"], "");
    let last = ended.stdout.lines().last().unwrap();
    let names: Vec<_> = last.split('"').skip(1).step_by(2).collect();
    let wanted =
        "lines published handled duplicates redelivered retried dead lost order_violations elapsed_seconds";
    assert_eq!(names.join(" "), wanted);
    let table = headless(&["demo", "--messages", "1"], "").stdout;
    let names: Vec<_> = table
        .lines()
        .map(|line| line[..17].trim().replace(' ', "_"))
        .collect();
    assert_eq!(names.join(" "), wanted);
}

#[test]
fn should_report_every_mistake_and_publish_nothing_when_the_input_of_the_demo_is_wrong() {
    let parsed = headless(
        &["demo", "--input", "-"],
        &[
            "{\"id\":\"a\",\"key\":\"k\",\"payload\":1}",
            "",
            "nope",
            "{\"key\":\"k\",\"payload\":1}",
            "{\"id\":\"b\",\"payload\":1}",
            "{\"id\":\"c\",\"key\":\"k\"}",
            "\u{feff}",
            "{\"id\":7,\"key\":[],\"payload\":1}",
            "{\"id\":\"d\",\"key\":\"k\",\"headers\":{\"x\":\"1\",\"y\":true},\"payload\":1}",
            "[\"e\",\"k\",null,{},1]",
            "{\"id\":\"f\",\"id\":\"g\",\"key\":\"k\",\"payload\":1}",
            "{\"id\":\"h\",\"key\":\"k\",\"headers\":\"x\",\"payload\":1",
            "{\"id\":\"i\",\"key\":\"k\",\"headers\":\"x\",\"payload\":1}",
        ]
        .join("\n"),
    );
    assert_eq!((parsed.code, &*parsed.stdout), (2, ""));
    for mistake in [
        "line 3 is not JSON: expected ident (column 2)",
        "line 4: it lacks the field `id`",
        "line 5: it lacks the field `key`",
        "line 6: it lacks the field `payload`",
        "line 7 is not JSON: expected value (column 1)",
        "line 8: the field `id` is a number, it must be a string",
        "line 9: the field `headers.y` is true or false, it must be a string",
        "line 10 is an array, it must be an object",
        "line 11: duplicate field `id`",
        "line 12 is not JSON: EOF while parsing an object (column 45)",
        "line 13: the field `headers` is a string, it must be an object",
    ] {
        assert!(
            parsed.stderr.contains(mistake),
            "{:?} lacks {mistake:?}",
            parsed.stderr
        );
    }
    let large = "x".repeat(1024 * 1024);
    let checked = headless(
        &["demo", "--input", "-"],
        &format!(
            "{{\"id\":\"a\",\"key\":\"k\\u0000\",\"payload\":1}}\n{{\"id\":\"b\",\"key\":\"k\",\"event\":\"x\\ny\",\"payload\":1}}\n\
             {{\"id\":\"c\",\"key\":\"k\",\"payload\":{large:?}}}\n{{\"id\":\"\",\"key\":\"k\",\"payload\":1}}\n\
             {{\"id\":\"e\",\"key\":\"k\",\"headers\":{{\"hl-id\":\"1\"}},\"payload\":1}}\n{{\"id\":\"f\",\"key\":\"k\",\"payload\":1}}\n"
        ),
    );
    assert_eq!((checked.code, &*checked.stdout), (2, ""));
    let lines: Vec<_> = checked.stderr.lines().collect();
    let mistakes = [
        ("line 1:", "partition key contains the control character U+0000"),
        ("line 2:", "header value contains the control character U+000A"),
        ("line 3:", "payload is 1048578 bytes, the limit is 1048576"),
        ("line 4:", "idempotency key is empty"),
        ("line 5:", "hl-id"),
    ];
    assert_eq!(lines.len(), mistakes.len(), "{lines:?}");
    for (line, (number, mistake)) in lines.iter().zip(mistakes) {
        assert!(
            line.contains(number) && line.contains(mistake),
            "{line:?} lacks {number:?} or {mistake:?}"
        );
    }
}

#[test]
fn should_name_scheme_and_feature_without_secrets_when_a_provider_is_not_compiled_in() {
    for args in [
        &["demo", "--store", "redis://user:hunter2@localhost/db"][..],
        &["demo", "--transport", "nats://user:hunter2@localhost"],
        &["publish", "--topic", "t", "--store", "sqlite:hunter2.db", "1"],
        &["publish", "--topic", "t", "--transport", "sqs:hunter2", "1"],
        &["publish", "--topic", "t", "--transport", "hunter2", "1"],
    ] {
        let ended = headless(args, "");
        assert_eq!((ended.code, &*ended.stdout), (2, ""), "{args:?}");
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("--store: ") || ended.stderr.contains("--transport: "),
            "{}",
            ended.stderr
        );
    }
    let ended = headless(&["demo", "--store", "redis://localhost"], "");
    assert!(ended.stderr.contains("the feature \"redis\""), "{}", ended.stderr);
}

#[test]
fn should_end_with_one_and_say_which_side_when_a_server_cannot_be_reached() {
    // Nothing listens on port 1.
    let url = "postgres://user:hunter2@127.0.0.1:1/db";
    for args in [
        &["demo", "--store", url][..],
        &["publish", "--topic", "t", "--store", url, "1"],
        &["migrate", "--store", url],
        &["migrate", "--check", "--store", url],
        &["status", "--store", url],
        &["groups", "list", "--service", "s", "--store", url],
        &[
            "groups",
            "pause",
            "g",
            "--force",
            "--by",
            "ada",
            "--service",
            "s",
            "--store",
            url,
        ],
    ] {
        let ended = headless(args, "");
        assert_eq!(
            (ended.code, &*ended.stdout),
            (1, ""),
            "{args:?}: {}",
            ended.stderr
        );
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
        for said in ["error: --store: ", "127.0.0.1:1", "can it be reached"] {
            assert!(ended.stderr.contains(said), "{:?} lacks {said:?}", ended.stderr);
        }
    }
}

#[test]
fn should_have_nothing_to_migrate_when_the_store_is_memory() {
    for args in [&["migrate"][..], &["migrate", "--check"]] {
        let ended = headless(&[args, &["--store", "memory:"]].concat(), "");
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert_eq!(
            ended.stdout,
            "memory keeps no schema: there is nothing to migrate\n"
        );
    }
    let ended = headless(&["migrate", "--json", "--store", "memory:"], "");
    let wanted = json!({ "provider": "memory", "schema": null, "present": [], "applied": [], "pending": [] });
    assert_eq!(objects(&ended.stdout), [wanted]);
}

#[test]
fn should_print_what_became_of_the_message_when_one_is_published() {
    let direct = headless(
        &[
            "publish",
            "--topic",
            "t",
            "--transport",
            "memory:",
            "--json",
            r#"{"a":1}"#,
        ],
        "",
    );
    assert_eq!(direct.code, 3, "{}", direct.stderr);
    assert!(direct.stderr.contains("no group takes t"), "{}", direct.stderr);
    assert_eq!(objects(&direct.stdout)[0]["outcome"], "unrouted");
    let stored = headless(
        &[
            "publish",
            "--topic",
            "t",
            "--store",
            "memory:",
            "--json",
            "--partitions",
            "4",
            "--key",
            "k",
            "--header",
            "a=b",
            "--idempotency-key",
            "i",
            "-",
        ],
        "[1]",
    );
    assert_eq!(stored.code, 0, "{}", stored.stderr);
    assert_eq!(objects(&stored.stdout)[0]["outcome"], "stored");
    let raw = headless(
        &[
            "publish", "--topic", "t", "--store", "memory:", "--raw", "as it is",
        ],
        "",
    );
    assert_eq!((raw.code, raw.stdout.trim().len()), (0, 36), "{}", raw.stderr);
}

#[test]
fn should_refuse_a_field_that_it_would_lose_when_lines_are_published() {
    let publish = ["publish", "--topic", "t", "--store", "memory:", "--lines", "-"];
    let ended = headless(
        &publish,
        "{\"idempotency_key\":\"x\",\"payload\":1}\n{\"payload\":2}\n",
    );
    assert_eq!(ended.code, 2);
    let wanted = "line 1: the field `idempotency_key` is none of `id`, `key`, `event`, `headers`, `payload`";
    assert!(ended.stderr.contains(wanted), "{}", ended.stderr);
    assert_eq!(ended.stdout.lines().count(), 1, "the other is published");
}

#[test]
fn should_publish_the_others_and_report_each_mistake_when_lines_are_wrong() {
    let ended = headless(
        &[
            "publish",
            "--topic",
            "t",
            "--partitions",
            "4",
            "--store",
            "memory:",
            "--json",
            "--lines",
            "-",
        ],
        "{\"key\":\"k\",\"payload\":1}\nnope\n{\"payload\":\"no key\"}\n\n{\"key\":\"k\",\"payload\":2}\n",
    );
    assert_eq!(ended.code, 2);
    let lines: Vec<_> = objects(&ended.stdout)
        .iter()
        .map(|object| object["line"].clone())
        .collect();
    assert_eq!(lines, [json!(1), json!(5)]);
    for mistake in ["line 2 is not JSON: expected ident", "line 3:", "has no key"] {
        assert!(
            ended.stderr.contains(mistake),
            "{:?} lacks {mistake:?}",
            ended.stderr
        );
    }
}

#[test]
fn should_end_with_two_when_the_usage_is_wrong() {
    for (args, said) in [
        (
            &["publish", "--topic", "t", "--store", "memory:", "{"][..],
            "DATA is no JSON",
        ),
        (
            &["publish", "--topic", "t", "1"],
            "--store <URL>|--transport <URL>",
        ),
        (
            &["publish", "--topic", "t", "--store", "memory:"],
            "<DATA|--lines <FILE>>",
        ),
        (
            &["publish", "--topic", "no spaces", "--store", "memory:", "1"],
            "no spaces",
        ),
        (
            &[
                "publish",
                "--topic",
                "t",
                "--store",
                "memory:",
                "--partitions",
                "4",
                "1",
            ],
            "has no key",
        ),
        (
            &[
                "publish", "--topic", "t", "--store", "memory:", "--header", "a", "1",
            ],
            "NAME=VALUE",
        ),
        (
            &[
                "publish",
                "--topic",
                "t",
                "--store",
                "memory:",
                "--lines",
                "/no/such/file",
            ],
            "/no/such/file",
        ),
        (&["demo", "--input", "/no/such/file"], "/no/such/file"),
        (&["demo", "--keys", "0"], "--keys"),
        (&["migrate", "--store", "sqs:x"], "--store: "),
        (&["migrate", "--store", "postgres://h/d?schema=A"], "--store: "),
        (&["migrate"], "--store"),
        (&["demo", "--crash-after", "0"], "--crash-after"),
        (&["demo", "--input", "-", "--keys", "2"], "cannot be used with"),
        (&["groups", "pause", "g", "--service", "s"], "--store"),
        (&["groups", "pause", "g", "--store", "memory:"], "--service"),
        (
            &["groups", "pause", "G", "--service", "s", "--store", "memory:"],
            "must start with a-z or 0-9",
        ),
        (
            &[
                "groups",
                "concurrency",
                "g",
                "0",
                "--service",
                "s",
                "--store",
                "memory:",
            ],
            "a number from 1 to 100000",
        ),
        (
            &[
                "groups",
                "concurrency",
                "g",
                "100001",
                "--service",
                "s",
                "--store",
                "memory:",
                "--by",
                "ada",
            ],
            "the most is 100000",
        ),
        (
            &[
                "groups",
                "pause",
                "g",
                "--service",
                "s",
                "--store",
                "memory:",
                "--by",
                "ada",
                "--wait",
                "2h",
            ],
            "write it as in 30s",
        ),
        (
            &[
                "groups",
                "pause",
                "g",
                "--service",
                "s",
                "--store",
                "memory:",
                "--by",
                "ada",
            ],
            "no node of a service \"s\" is known to the store; known are: none. --force",
        ),
        (&["status", "--store", "sqs:x"], "--store: "),
        (&[], "Usage"),
    ] {
        let ended = headless(args, "");
        assert_eq!((ended.code, &*ended.stdout), (2, ""), "{args:?}");
        assert!(
            ended.stderr.contains(said),
            "{args:?}: {:?} lacks {said:?}",
            ended.stderr
        );
    }
    assert!(headless(&["--help"], "").stdout.contains("Exit codes"));
}

/// The rows of the table of exit codes in the documentation.
fn documented_codes() -> Vec<(i32, String)> {
    let page = include_str!("../../../docs/command.md");
    let (_, table) = page.split_once("## Exit codes").unwrap();
    let rows = table.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let code = cells.get(1)?.parse().ok()?;
        let example = cells.get(3)?.trim_matches('`').strip_prefix("headless ")?;
        Some((code, example.to_owned()))
    });
    rows.collect()
}

#[test]
fn should_end_with_the_codes_that_the_documentation_lists() {
    let documented = documented_codes();
    let codes: Vec<i32> = documented.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [0, 1, 2, 3]);
    for (code, example) in &documented {
        let ended = headless(&example.split(' ').collect::<Vec<_>>(), "");
        assert_eq!(ended.code, *code, "{example}: {} {}", ended.stdout, ended.stderr);
    }
    let help = headless(&["--help"], "").stdout;
    let (_, listed) = help.split_once("Exit codes:\n").unwrap();
    let listed: Vec<i32> = listed
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.trim_start().split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(listed, codes, "what --help says");
}

#[test]
fn should_show_every_part_of_the_status_when_there_is_nothing_in_it() {
    let ended = headless(
        &["status", "--store", "memory:", "--service", "orders", "--json"],
        "",
    );
    assert_eq!((ended.code, &*ended.stderr), (0, ""));
    let wanted = json!({
        "store": "memory",
        "outbox": { "delayed": 0, "ready": 0, "leased": 0, "retrying": 0, "oldest_seconds": null },
        "inbox": { "running": 0, "parked": 0, "processed": 0, "dead": 0, "discarded": 0 },
        "dead_letters": [],
        "services": [{ "service": "orders", "nodes": [], "groups": [] }],
    });
    assert_eq!(objects(&ended.stdout), [wanted]);
    let table = headless(&["status", "--store", "memory:"], "");
    assert_eq!(table.code, 0, "{}", table.stderr);
    assert!(
        table.stdout.starts_with("outbox: 0 ready, 0 leased"),
        "{}",
        table.stdout
    );
    let listed = headless(
        &[
            "groups",
            "list",
            "--store",
            "memory:",
            "--service",
            "orders",
            "--json",
        ],
        "",
    );
    assert_eq!(
        objects(&listed.stdout),
        [json!({ "service": "orders", "groups": [] })]
    );
}

#[test]
fn should_say_what_is_wanted_when_a_group_is_forced_that_nobody_has() {
    let place = [
        "--store",
        "memory:",
        "--service",
        "orders",
        "--by",
        "ada",
        "--force",
    ];
    let paused = headless(
        &[
            &["groups", "pause", "billing", "--topic", "placed", "--json"],
            &place[..],
        ]
        .concat(),
        "",
    );
    assert_eq!((paused.code, &*paused.stderr), (0, ""));
    let wanted = json!({
        "service": "orders",
        "subject": "group:billing/placed",
        "wanted": { "paused": true, "concurrency": null },
        "version": 1,
        "changed": true,
    });
    assert_eq!(objects(&paused.stdout), [wanted]);
    let resumed = headless(&[&["groups", "resume", "billing"], &place[..]].concat(), "");
    assert_eq!(
        resumed.stdout,
        "group billing is already wanted: not paused, concurrency default\n"
    );
    let limited = headless(
        &[&["groups", "concurrency", "billing", "4"], &place[..]].concat(),
        "",
    );
    assert_eq!(
        limited.stdout,
        "group billing is now wanted: not paused, concurrency 4\n"
    );
}
