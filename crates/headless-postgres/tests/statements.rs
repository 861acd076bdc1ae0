//! Every statement of the provider, against the server: what is wrong with one is found here, not by who runs it first.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use headless_postgres::Postgres;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use crate::world::World;

/// Calls of every function with nulls, as `select * from f(null::…)`.
const CALLS: &str = include_str!("statements/calls.sql");
const STRICT: &str = include_str!("statements/strict.sql");

/// The files of this kind below this folder of the crate.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, extension, found);
            } else if path.extension().is_some_and(|is| is == extension) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
        extension,
        &mut found,
    );
    found.sort();
    assert!(!found.is_empty(), "no .{extension} below {folder}");
    found
}

/// The path of a query, as `statements!` names it.
fn name(path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("queries");
    let path = path.strip_prefix(root).unwrap().with_extension("");
    path.to_str().unwrap().to_owned()
}

/// The statements of a file, without comments: the protocol prepares one at a time.
fn statements(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.split_once("--").map_or(line, |(code, _comment)| code))
        .collect();
    let text = lines.join("\n");
    let statements = text.split(';').map(str::trim);
    statements
        .filter(|one| !one.is_empty())
        .map(str::to_owned)
        .collect()
}

/// With what is put in beside the schema's name.
fn filled(statement: &str) -> String {
    let nulls = ["null"; 9].join(", ");
    statement
        .replace("{statement_timeout}", "1000")
        .replace("inbox_mark('{arguments}')", &format!("inbox_mark({nulls})"))
}

#[tokio::test]
async fn should_prepare_every_query_when_only_the_schema_is_searched_by_its_name() {
    World::run(async |world| {
        Postgres::migrate(&world.config()).await.unwrap();
        let mut conn = world.conn().await;
        // A name without its schema is then not found.
        sqlx::raw_sql(STRICT).execute(&mut conn).await.unwrap();
        let mut wrong = Vec::new();
        for path in files("queries", "sql") {
            for statement in statements(&fs::read_to_string(&path).unwrap()) {
                let prepared =
                    (&mut conn).prepare(sqlx::SqlSafeStr::into_sql_str(world.sql(&filled(&statement))));
                if let Err(error) = prepared.await {
                    wrong.push(format!("{}: {error}", name(&path)));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    })
    .await;
}

#[test]
fn should_send_every_query_that_there_is() {
    let sources: String = files("src", "rs")
        .into_iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let unused: Vec<String> = files("queries", "sql")
        .iter()
        .map(|path| name(path))
        .filter(|name| !sources.contains(&format!(": \"{name}\",")))
        .collect();
    assert!(unused.is_empty(), "no statements! names {unused:?}");
}

#[test]
fn should_apply_every_migration_that_there_is() {
    let registered: BTreeSet<String> = headless_postgres::Migration::ALL
        .iter()
        .map(|migration| format!("{}.sql", migration.name))
        .collect();
    let files: BTreeSet<String> = files("migrations", "sql")
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(registered, files, "every file is registered");
}

/// The server compiles a statement within a function when it first runs. So each function is called with nulls, and what
/// it says to them does not matter, unless it is about its own text.
#[tokio::test]
async fn should_know_every_name_within_functions_when_they_run() {
    World::run(async |world| {
        Postgres::migrate(&world.config()).await.unwrap();
        let mut conn = world.conn().await;
        sqlx::raw_sql(STRICT).execute(&mut conn).await.unwrap();
        let calls = sqlx::query(world.sql(CALLS)).fetch_all(&mut conn).await.unwrap();
        let mut wrong = Vec::new();
        for row in calls {
            let call: String = row.get("call");
            let mut tx = conn.begin().await.unwrap();
            if let Err(sqlx::Error::Database(error)) =
                sqlx::raw_sql(AssertSqlSafe(call.clone())).execute(&mut *tx).await
            {
                // Class 42: syntax, or a name that is not there.
                if error.code().is_some_and(|code| code.starts_with("42")) {
                    wrong.push(format!("{call}: {error}"));
                }
            }
            tx.rollback().await.unwrap();
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    })
    .await;
}
