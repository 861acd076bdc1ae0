//! `headless dead` on a PostgreSQL server, as an operator uses it.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::FutureExt;
use headless::{
    Consumer, Context, Event, HandlerError, HandlerResult, Headless, Ordered, Postgres, Preset, Providers,
    Runtime, Sandbox,
};
use headless_harness::services;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const MINUTE: Duration = Duration::from_mins(1);

#[derive(Serialize, Deserialize)]
struct Placed {
    order: u32,
    customer: String,
}

impl Event for Placed {
    const TOPIC: &'static str = "orders.placed";
}

/// The address of a database of the test's own, and whether its consumer knows customer 7.
struct World {
    url: String,
    mended: Arc<AtomicBool>,
}

struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl World {
    async fn run(test: impl AsyncFnOnce(&World, &Runtime)) {
        let server = match services::postgres() {
            Ok(server) => server,
            Err(absent) => {
                assert!(!services::is_required("postgres"), "{absent:?}");
                return;
            }
        };
        let sandbox = Sandbox::new();
        let url = sandbox.url(&server) + "&max_connections=3&control_connections=2";
        let world = World {
            url: url.clone(),
            mended: Arc::default(),
        };
        let trial = async {
            let runtime = world.start().await;
            test(&world, &runtime).await;
            runtime.shutdown(MINUTE).await.unwrap();
        };
        let ended = AssertUnwindSafe(trial).catch_unwind().await;
        sandbox.remove(&url).await.unwrap();
        if let Err(panic) = ended {
            resume_unwind(panic);
        }
    }

    async fn start(&self) -> Runtime {
        let connected = Providers::builtin().connect(&self.url).await.unwrap();
        let mended = self.mended.clone();
        let bill = move |placed: Placed, cx: Context| {
            let mended = mended.load(SeqCst);
            async move { bill(&placed, mended, &cx).await }
        };
        Headless::builder("orders")
            .any_store(&connected.store().unwrap())
            .any_transport(&connected.transport().unwrap())
            .topic::<Placed>(Ordered::no())
            .consumer(Consumer::group("billing").on(bill))
            .preset(Preset::Development)
            .start()
            .await
            .unwrap()
    }

    /// What `headless dead` does with these arguments.
    fn dead(&self, args: &[&str]) -> Ended {
        let (command, rest) = args.split_first().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_headless"))
            .args(["dead", command, "--store", &self.url])
            .args(rest)
            .env_remove("RUST_LOG")
            .env("USER", "ann")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Ended {
            code: output.status.code().unwrap(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// The same with `--json`, which ends with this code.
    fn json(&self, code: i32, args: &[&str]) -> Value {
        let ended = self.dead(&[args, &["--json"]].concat());
        assert_eq!(ended.code, code, "{args:?}: {} {}", ended.stdout, ended.stderr);
        serde_json::from_str(&ended.stdout).unwrap()
    }

    fn ids(&self, args: &[&str]) -> Vec<String> {
        let list = self.json(0, &[&["list"], args].concat());
        let letters = list["dead_letters"].as_array().unwrap();
        letters
            .iter()
            .map(|letter| letter["id"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// Fails for customers that it does not know, and for one it never ends well.
async fn bill(placed: &Placed, mended: bool, cx: &Context) -> HandlerResult {
    if placed.customer == "evil" {
        return Err(HandlerError::permanent(format!(
            "order {}: \x1b[Hgone",
            placed.order
        )));
    }
    if placed.customer != "known" && !mended {
        let error = format!("order {}: customer {} is unknown", placed.order, placed.customer);
        return Err(HandlerError::permanent(error));
    }
    let work = cx.begin::<Postgres>().await?;
    Ok(work.commit().await?)
}

/// Eight orders that die: six of unknown customers, two of another error.
async fn publish(runtime: &Runtime) {
    for order in 1..=8 {
        let customer = if order > 6 {
            "evil".to_owned()
        } else {
            format!("c-{order}")
        };
        runtime
            .publisher()
            .publish(&Placed { order, customer })
            .await
            .unwrap();
    }
    runtime.settled(MINUTE).await.unwrap();
    assert_eq!(runtime.backlog().await.unwrap().dead, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn should_count_show_mend_and_redrive_when_an_operator_works_through_dead_letters() {
    World::run(async |world, runtime| {
        publish(runtime).await;
        let causes = world.json(0, &["list", "--by-cause"]);
        let causes = causes["causes"].as_array().unwrap();
        let counts: Vec<_> = causes
            .iter()
            .map(|cause| (&cause["count"], &cause["error"]))
            .collect();
        assert_eq!(
            counts,
            [
                (&json!(6), &json!("order #: customer # is unknown")),
                (&json!(2), &json!("order #: \x1b[Hgone"))
            ]
        );
        assert_eq!(causes[0]["origin"], json!({ "group": "billing" }));

        // What an error would do to a terminal is shown and not done.
        let table = world.dead(&["list", "--error", "gone", "--group", "billing"]);
        assert_eq!(
            (table.code, table.stdout.lines().count()),
            (0, 3),
            "{}",
            table.stdout
        );
        assert!(table.stdout.contains(r"\u{1b}[Hgone"), "{}", table.stdout);

        // A page, and the rest.
        let first = world.json(0, &["list", "--limit", "5"]);
        assert_eq!(first["dead_letters"].as_array().unwrap().len(), 5);
        let next = first["next"].as_str().unwrap();
        assert_eq!(world.ids(&["--limit", "5", "--after", next]).len(), 3);

        // One is mended.
        let unknown = world.ids(&["--error", "unknown"]);
        let one = unknown[0].as_str();
        let before = world.json(0, &["show", one])["message"]["payload"].clone();
        let edited = world.json(0, &["edit", one, r#"{"order":1,"customer":"known"}"#]);
        assert_eq!(edited["answers"], json!([{ "id": one, "answer": "edited" }]));
        let late = world.json(3, &["edit", one, "{}", "--seen", "0", "--by", "bob"]);
        assert_eq!(late["answers"][0]["answer"], "edited_since");
        let shown = world.json(0, &["show", one]);
        assert_eq!(shown["message"]["payload"]["json"]["customer"], "known");
        assert_eq!(shown["history"][0]["by"], "ann");
        assert_eq!(shown["history"][0]["before"], before);
        let raw = world.dead(&["show", one, "--payload"]);
        assert_eq!(raw.stdout, r#"{"order":1,"customer":"known"}"#);
        let page = world.dead(&["show", one]);
        assert!(page.stdout.contains("edited by ann"), "{}", page.stdout);

        let again = world.json(0, &["redrive", one, "--by", "bob"]);
        assert_eq!(again["answers"], json!([{ "id": one, "answer": "redriven" }]));
        runtime.settled(MINUTE).await.unwrap();
        assert_eq!(
            runtime.backlog().await.unwrap().dead,
            7,
            "the mended one was handled"
        );
        let closed = world.dead(&["redrive", one]);
        assert_eq!(closed.code, 3);
        assert!(
            closed.stdout.contains("was redriven or discarded before"),
            "{}",
            closed.stdout
        );

        // The cause is mended, and all that are like it follow.
        world.mended.store(true, SeqCst);
        let like = ["--like", unknown[1].as_str()];
        let dry = world.json(0, &[&["redrive", "--dry-run"], &like[..]].concat());
        assert_eq!(dry["causes"][0]["count"], 5);
        let all = world.json(0, &[&["redrive", "--rate", "50"], &like[..]].concat());
        assert_eq!(all, json!({ "redriven": 5, "more": false }));
        runtime.settled(MINUTE).await.unwrap();
        assert_eq!(runtime.backlog().await.unwrap().dead, 2);

        // The others are not worth it.
        let evil = world.ids(&["--cause", "permanent"]);
        let one = world.json(0, &["discard", &evil[0]]);
        assert_eq!(one["answers"], json!([{ "id": &evil[0], "answer": "discarded" }]));
        assert_eq!(
            world.json(0, &["discard", "--all"]),
            json!({ "discarded": 1, "more": false })
        );
        assert_eq!(world.ids(&[]), Vec::<String>::new());
        assert_eq!(world.ids(&["--closed"]).len(), 8);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn should_say_what_is_wrong_when_the_command_cannot_do_it() {
    World::run(async |world, runtime| {
        publish(runtime).await;
        let unknown = "00000000-0000-4000-8000-000000000007";
        let one = world.ids(&["--limit", "1"])[0].clone();
        for (args, code, text) in [
            (&["show", unknown][..], 3, "there is no dead letter"),
            (&["redrive", unknown], 3, "there is no such dead letter"),
            (&["discard", unknown], 3, "there is no such dead letter"),
            (&["edit", unknown, "{}"], 3, "there is no such dead letter"),
            (&["edit", &one, "no json"], 2, "--raw"),
            (&["edit", &one, "{}", "--by", &"a".repeat(201)], 2, "200"),
            (&["edit", &one, "--file", "/nowhere/at/all"], 2, "/nowhere/at/all"),
            (&["redrive", &one, "--max-redrives", "0"], 3, "--max-redrives"),
            (&["redrive", "--all", "--max-redrives", "0"], 3, "cap_reached 8"),
            (&["redrive"], 2, "required"),
            (&["redrive", &one, "--all"], 2, "cannot be used with"),
            (&["discard"], 2, "required"),
            (&["list", "--like", unknown], 2, "--like"),
            (&["list", "--cause", "boredom"], 2, "undecodable"),
            (&["list", "--since", "yesterday"], 2, "2026-11-21T08:00:00Z"),
            (&["list", "--limit", "1001"], 2, "1001"),
            (&["list", "--after", "nonsense"], 2, "cursor"),
            (&["list", "--group", "no good name"], 2, "group"),
        ] {
            let ended = world.dead(args);
            assert_eq!(ended.code, code, "{args:?}: {} {}", ended.stdout, ended.stderr);
            let said = ended.stdout + &ended.stderr;
            assert!(said.contains(text), "{args:?}: {said}");
        }
        assert_eq!(runtime.backlog().await.unwrap().dead, 8, "nothing was changed");
        let nobody = Command::new(env!("CARGO_BIN_EXE_headless"))
            .args(["dead", "discard", "--all", "--store", &world.url])
            .env_remove("USER")
            .output()
            .unwrap();
        assert_eq!(nobody.status.code(), Some(2));
        assert!(String::from_utf8(nobody.stderr).unwrap().contains("--by"));
    })
    .await;
}
