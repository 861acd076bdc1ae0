//! `headless migrate`.

use serde_json::{Value, json};

use crate::{
    process::{Ended, Process},
    world::World,
};

async fn migrate(world: &World, args: &[&str]) -> Ended {
    let url = world.url();
    Process::start(&[&["migrate", "--store", &url], args].concat())
        .end()
        .await
}

async fn report(world: &World, args: &[&str]) -> (Option<i32>, Value) {
    let ended = migrate(world, &[args, &["--json"]].concat()).await;
    assert_eq!(ended.stderr, "");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["provider"], "postgres");
    assert_eq!(report["schema"], world.schema());
    (ended.code, report)
}

#[tokio::test]
async fn should_list_what_is_missing_and_change_nothing_when_it_only_checks() {
    World::run(async |world| {
        for _ in 0..2 {
            let (code, report) = report(world, &["--check"]).await;
            assert_eq!(code, Some(3));
            assert_eq!((&report["present"], &report["applied"]), (&json!([]), &json!([])));
            assert_eq!(report["pending"][0], "0001_base");
        }
        let text = migrate(world, &["--check"]).await;
        assert_eq!(text.code, Some(3));
        assert!(text.stdout.starts_with("missing  0001_base\n"), "{}", text.stdout);
        assert!(text.stdout.contains("run `headless migrate`"), "{}", text.stdout);
    })
    .await;
}

#[tokio::test]
async fn should_apply_what_is_missing_once_when_it_is_run_again_and_again() {
    World::run(async |world| {
        let (_, missing) = report(world, &["--check"]).await;
        let (code, first) = report(world, &[]).await;
        assert_eq!((code, &first["applied"]), (Some(0), &missing["pending"]));
        assert_eq!((&first["present"], &first["pending"]), (&json!([]), &json!([])));
        for args in [&[][..], &["--check"]] {
            let (code, again) = report(world, args).await;
            assert_eq!((code, &again["present"]), (Some(0), &missing["pending"]));
            assert_eq!((&again["applied"], &again["pending"]), (&json!([]), &json!([])));
        }
        let text = migrate(world, &["--check"]).await.stdout;
        let end = format!("schema {} is up to date\n", world.schema());
        assert!(
            text.starts_with("present  0001_base\n") && text.ends_with(&end),
            "{text}"
        );
    })
    .await;
}

#[tokio::test]
async fn should_apply_each_step_once_when_processes_do_it_at_the_same_time() {
    World::run(async |world| {
        let url = world.url();
        let all: Vec<_> = (0..4)
            .map(|_| Process::start(&["migrate", "--json", "--store", &url]))
            .collect();
        let mut applied = Vec::new();
        for process in all {
            let report: Value = serde_json::from_str(&process.end_well().await).unwrap();
            applied.extend(report["applied"].as_array().unwrap().clone());
        }
        let (code, report) = report(world, &["--check"]).await;
        assert_eq!(code, Some(0));
        applied.sort_by_key(ToString::to_string);
        assert_eq!(report["present"], Value::Array(applied));
    })
    .await;
}
