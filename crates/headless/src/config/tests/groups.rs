//! What a configuration sets of groups.

use std::{num::NonZeroUsize, time::Duration};

use super::{assert_has, config, refused};
use crate::{Config, Consumer, Context, Event, HandlerResult, Headless, Setting};

#[derive(serde::Serialize, serde::Deserialize)]
struct Placed;

impl Event for Placed {
    const TOPIC: &'static str = "orders.placed";
}

async fn bill(_: Placed, _: Context) -> HandlerResult {
    Ok(())
}

const TUNED: &str = "[groups.billing]\nconcurrency = 3\nprefetch = 7\ntimeout = \"5 s\"\n\
    [groups.\"other.place\"]\nlease = \"2 min\"\n[groups.nothing]\n";

#[tokio::test]
async fn should_run_a_group_as_the_configuration_says_when_the_code_leaves_it_open() {
    let config = config(TUNED).with_text("over.toml", "groups.billing.concurrency = 4\n");
    let before: Vec<_> = Headless::from_config(&config).explain();
    let before: Vec<_> = before.iter().map(Setting::to_string).collect();
    assert_has(&before, "group.billing.concurrency = 4 (file over.toml, line 1)");

    let runtime = Headless::from_config(&config)
        .consumer(Consumer::group("billing").on(bill).lease(Duration::from_secs(9)))
        .start()
        .await
        .unwrap();
    let settings = runtime.consumers()[0].settings();
    assert_eq!(
        (
            settings.concurrency,
            settings.prefetch,
            settings.timeout,
            settings.lease
        ),
        (
            4,
            NonZeroUsize::new(7).unwrap(),
            Duration::from_secs(5),
            Duration::from_secs(9)
        )
    );
    let lines: Vec<_> = runtime.explain().iter().map(Setting::to_string).collect();
    for wanted in [
        "group.billing.concurrency = 4 (file over.toml, line 1)",
        "group.billing.prefetch = 7 (file orders.toml, line 6)",
        "group.billing.timeout = 5 s (file orders.toml, line 7)",
        "group.billing.lease = 9 s (builder)",
        "group.billing.visibility = 30 s (default)",
        "group.other.place.lease = 2 min, without such a group here (file orders.toml, line 9)",
    ] {
        assert_has(&lines, wanted);
    }
    let of_billing = lines
        .iter()
        .filter(|line| line.starts_with("group.billing.concurrency "));
    assert_eq!(of_billing.count(), 1, "{lines:#?}");
    runtime.shutdown(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test]
async fn should_name_key_place_and_limit_when_a_setting_of_a_group_is_wrong() {
    let text = refused(&config(
        "[groups.billing]\nconcurency = 3\nprefetch = 0\ntimeout = 5\n[groups.\"no spaces\"]\nlease = \"1 s\"\n[groups]\nx = 1\n",
    ))
    .await;
    for wanted in [
        "groups.billing.concurency (file orders.toml, line 5) is unknown: do you mean groups.billing.concurrency?",
        "groups.billing.prefetch is 0, the least is 1 (file orders.toml, line 6)",
        "groups.billing.timeout is a number, it must be a time with its unit, as \"30 s\" (file orders.toml, line 7)",
        "groups.\"no spaces\".lease names no group",
        "groups.x is a number, it must be a table (file orders.toml, line 11)",
    ] {
        assert!(text.contains(wanted), "{text} lacks {wanted:?}");
    }
}

#[tokio::test]
async fn should_refuse_a_setting_of_a_group_when_it_is_out_of_bounds_or_given_twice() {
    let config = config(
        "[groups.billing]\nconcurrency = 0\ntimeout = \"400 d\"\nlease = \"1 ms\"\nvisibility = \"9 s\"\n",
    );
    let consumer = || {
        Consumer::group("billing")
            .on(bill)
            .visibility(Duration::from_secs(5))
    };
    let error = Headless::from_config(&config)
        .consumer(consumer())
        .check()
        .unwrap_err();
    let text = error.to_string();
    for wanted in [
        "concurrency is 0 (file orders.toml, line 5), the least is 1",
        "timeout is 34560000s (file orders.toml, line 6), the most is",
        "lease is 1ms (file orders.toml, line 7), the least is 100ms",
        "visibility of group \"billing\" is given twice, in code and in file orders.toml, line 8: keep one",
    ] {
        assert!(text.contains(wanted), "{text} lacks {wanted:?}");
    }
    let no_variable = Config::new().with_variables([("HEADLESS__GROUPS__BILLING__CONCURRENCY", "3")]);
    let error = Headless::from_config(&no_variable).check().unwrap_err();
    assert!(error.to_string().contains("is unknown"), "{error}");
}
