//! `headless doctor`: each thing is broken for it, and it says which and what to do.

use headless_harness::{
    Unavailable,
    services::{self, PrivatePostgres, private_postgres, private_postgres_standby, private_rabbitmq},
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::process::{Ended, Process};

/// What is there, or nothing where a test cannot run.
fn there<T>(service: &str, found: Result<T, Unavailable>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(why) => {
            assert!(!services::is_required(service), "{why:?}");
            None
        }
    }
}

async fn doctor(args: &[&str]) -> Ended {
    Process::start(&[&["doctor"], args].concat()).end().await
}

/// What it says of one server, and the code that it ends with.
async fn findings(flag: &str, url: &str) -> (Option<i32>, Vec<Value>) {
    let ended = doctor(&[flag, url, "--json"]).await;
    assert_eq!(ended.stderr, "");
    assert!(!ended.stdout.contains("s3cret"), "{}", ended.stdout);
    let answer: Value = serde_json::from_str(&ended.stdout).unwrap();
    let findings = answer["servers"][0]["findings"].as_array().unwrap().clone();
    (ended.code, findings)
}

fn of<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    let found = findings.iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("no {check} in {findings:#?}"))
}

/// The one finding that is bad, which says this, and that this is to be done. Answers what is to be done.
async fn bad(flag: &str, url: &str, check: &str, cause: &str, fix: &str) -> String {
    let (code, findings) = findings(flag, url).await;
    assert_eq!(code, Some(3), "{findings:#?}");
    let bad: Vec<&Value> = findings.iter().filter(|one| one["condition"] == "bad").collect();
    assert_eq!(bad.len(), 1, "{findings:#?}");
    assert_eq!(bad[0]["check"], check, "{findings:#?}");
    let [found, remedy] = ["found", "fix"].map(|part| bad[0][part].as_str().unwrap());
    assert!(found.contains(cause), "{found:?} lacks {cause:?}");
    assert!(remedy.contains(fix), "{remedy:?} lacks {fix:?}");
    remedy.to_owned()
}

async fn well(flag: &str, url: &str) {
    let (code, findings) = findings(flag, url).await;
    assert_eq!(code, Some(0), "{findings:#?}");
}

async fn execute(url: &str, sql: &str) {
    let mut conn = PgConnection::connect(url).await.unwrap();
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

async fn migrate(url: &str) {
    Process::start(&["migrate", "--store", url]).end_well().await;
}

const STORE: &str = "--store";
const TRANSPORT: &str = "--transport";

#[tokio::test]
async fn should_find_what_is_wrong_with_the_way_to_a_database() {
    let Some(server) = there("postgres", PrivatePostgres::builder().password("s3cret").start()) else {
        return;
    };
    let url = server.url();
    migrate(&url).await;
    well(STORE, &url).await;

    let unknown = url.replace("s3cret", "other");
    bad(STORE, &unknown, "reachable", "user or password", "pg_hba.conf").await;
    let nowhere = server.url_for("nowhere");
    bad(
        STORE,
        &nowhere,
        "reachable",
        "\"nowhere\" does not exist",
        "create what is missing",
    )
    .await;
    drop(server);
    bad(
        STORE,
        &url,
        "reachable",
        "no connection could be made",
        "start the server",
    )
    .await;
}

#[tokio::test]
async fn should_find_what_is_wrong_with_a_schema() {
    let Some(server) = there("postgres", private_postgres()) else {
        return;
    };
    let url = server.url();
    bad(
        STORE,
        &url,
        "schema",
        "the first is 0001_base",
        "run `headless migrate",
    )
    .await;
    migrate(&url).await;
    well(STORE, &url).await;

    execute(&url, include_str!("sql/doctor/newer.sql")).await;
    bad(STORE, &url, "schema", "does not know", "before any service").await;
    execute(&url, include_str!("sql/doctor/changed.sql")).await;
    bad(STORE, &url, "schema", "was changed after", "before any service").await;
}

#[tokio::test]
async fn should_find_which_rights_are_missing_and_how_they_are_granted() {
    let Some(server) = there("postgres", private_postgres()) else {
        return;
    };
    let owner = server.url();
    execute(&owner, include_str!("sql/doctor/user.sql")).await;
    let app = owner.replacen("postgres://postgres", "postgres://app", 1);
    assert_ne!(app, owner);
    let (code, missing) = findings(STORE, &app).await;
    assert_eq!(code, Some(3));
    let fix = of(&missing, "schema")["fix"].as_str().unwrap();
    assert!(fix.contains("as a user who may create"), "{fix}");

    migrate(&owner).await;
    let fix = bad(
        STORE,
        &app,
        "rights",
        "use of schema headless, and ",
        "grant usage on schema",
    )
    .await;
    let (_, grants) = fix.split_once(": ").unwrap();
    execute(&owner, grants).await;
    well(STORE, &app).await;

    execute(&owner, include_str!("sql/doctor/revoke.sql")).await;
    bad(
        STORE,
        &app,
        "rights",
        "missing: delete of table outbox",
        "grant select, insert",
    )
    .await;
}

#[tokio::test]
async fn should_find_a_server_that_takes_no_writes_or_may_lose_them() {
    let few = PrivatePostgres::builder().setting("max_connections", "12");
    let Some(server) = there("postgres", few.start()) else {
        return;
    };
    let url = server.url();
    migrate(&url).await;
    let (code, crowded) = findings(STORE, &url).await;
    assert_eq!(code, Some(0), "it is good for a trial: {crowded:#?}");
    let capacity = of(&crowded, "capacity");
    assert_eq!(capacity["condition"], "doubtful");
    assert!(
        capacity["found"].as_str().unwrap().contains("of 9 connections"),
        "{capacity}"
    );
    assert!(
        capacity["fix"].as_str().unwrap().contains("max_connections"),
        "{capacity}"
    );

    let standby = private_postgres_standby(&server).unwrap();
    bad(STORE, &standby.url(), "writable", "a standby", "primary").await;
    drop(standby);
    for (setting, check, cause) in [
        ("default_transaction_read_only", "writable", "read-only"),
        ("synchronous_commit", "durable", "synchronous_commit is off"),
    ] {
        let value = if check == "writable" { "on" } else { "off" };
        execute(&url, &format!("alter database postgres set {setting} = {value}")).await;
        bad(STORE, &url, check, cause, setting).await;
        // In a session of which it is not true.
        execute(
            &url,
            &format!(
                "set {setting} = default; set default_transaction_read_only = off; begin read write; \
                      alter database postgres reset {setting}; commit"
            ),
        )
        .await;
    }
    well(STORE, &url).await;
    for setting in ["fsync", "full_page_writes"] {
        let server = PrivatePostgres::builder()
            .setting(setting, "off")
            .start()
            .unwrap();
        migrate(&server.url()).await;
        let cause = format!("{setting} is off");
        bad(STORE, &server.url(), "durable", &cause, setting).await;
    }
}

#[tokio::test]
async fn should_find_what_is_wrong_with_a_broker() {
    let Some(server) = there("rabbitmq", private_rabbitmq()) else {
        return;
    };
    let url = server.url();
    well(TRANSPORT, &url).await;
    let app = |password: &str, vhost: &str| {
        format!(
            "amqp://app:{password}@127.0.0.1:{}/{vhost}?namespace=shop",
            server.port()
        )
    };
    server.ctl(&["add_user", "app", "s3cret"]).unwrap();
    server.ctl(&["add_vhost", "shop"]).unwrap();
    bad(
        TRANSPORT,
        &app("other", "shop"),
        "reachable",
        "refused",
        "correct user, password",
    )
    .await;
    bad(
        TRANSPORT,
        &app("s3cret", "none"),
        "reachable",
        "refused",
        "add_vhost none",
    )
    .await;
    server
        .ctl(&["set_permissions", "-p", "shop", "app", "^other!.*", ".*", ".*"])
        .unwrap();
    let fix = bad(
        TRANSPORT,
        &app("s3cret", "shop"),
        "rights",
        "missing: configure",
        "set_permissions",
    )
    .await;
    let (command, _note) = fix.split_once(" (").unwrap();
    let words: Vec<&str> = command.split(' ').map(|word| word.trim_matches('\'')).collect();
    server.ctl(&words[1..]).unwrap();
    well(TRANSPORT, &app("s3cret", "shop")).await;

    // What is made under the namespace is not all: each member has a queue that the server names.
    let narrow: Vec<String> = words[1..]
        .iter()
        .map(|word| word.replace("|amq\\.gen", "").replace("|amq\\.", ""))
        .collect();
    let narrow: Vec<&str> = narrow.iter().map(String::as_str).collect();
    assert_ne!(narrow, words[1..]);
    server.ctl(&narrow).unwrap();
    bad(
        TRANSPORT,
        &app("s3cret", "shop"),
        "rights",
        "missing: configure of amq.gen",
        "amq",
    )
    .await;

    // Who may make something and use none of it leaves nothing behind.
    server
        .ctl(&["set_permissions", "-p", "shop", "app", ".*", "^$", "^$"])
        .unwrap();
    bad(
        TRANSPORT,
        &app("s3cret", "shop"),
        "rights",
        "missing: write and read",
        "set_permissions",
    )
    .await;
    let none = "[] = [N || {resource, _, exchange, N} <- rabbit_exchange:list_names(), \
                binary:match(N, <<\"doctor\">>) =/= nomatch].";
    server.ctl(&["eval", none]).unwrap();

    server.ctl(&["set_vm_memory_high_watermark", "0"]).unwrap();
    bad(
        TRANSPORT,
        &url,
        "writable",
        "short of memory",
        "rabbitmq-diagnostics alarms",
    )
    .await;
    drop(server);
    bad(
        TRANSPORT,
        &url,
        "reachable",
        "is the server running",
        "start the server",
    )
    .await;
}

#[tokio::test]
async fn should_look_at_what_a_configuration_names_and_print_it_for_people() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders.toml");
    let text = "service = \"orders\"\nstore.url = \"memory:a\"\ntransport.url = \"memory:a\"\n";
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let ended = doctor(&["--file", path]).await;
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "one URL for both is looked at once: {lines:#?}");
    assert_eq!(lines[1], "  good      reachable  it is in this process");
    assert!(lines[2].starts_with("  doubtful  durable    "), "{lines:#?}");
    assert!(lines[3].contains("do:"), "{lines:#?}");

    for (args, cause) in [
        (&[][..], "service is not set"),
        (&["--store", "nonsense://x"][..], "nonsense"),
        (&["--store", "memory:a?b"], "memory"),
    ] {
        let ended = doctor(args).await;
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(cause), "{}", ended.stderr);
    }
}
