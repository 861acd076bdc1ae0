//! What is delivered: real webhooks where they are at hand, else made ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::{Value, json};

use crate::github::Delivery;

/// How many there are of either kind.
const MANY: usize = 329;

/// 329 webhooks, five of which are repetitions of others.
pub(crate) fn all() -> Vec<Delivery> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/github-webhooks.jsonl");
    let deliveries = match fs::read_to_string(&file) {
        Ok(text) => text.lines().map(real).collect(),
        Err(error) => {
            eprintln!(
                "NOT THE REAL WEBHOOKS: {}: {error}; made ones take their place",
                file.display()
            );
            (0..MANY).map(made).collect::<Vec<_>>()
        }
    };
    assert_eq!(deliveries.len(), MANY);
    deliveries
}

fn real(line: &str) -> Delivery {
    let line: Value = serde_json::from_str(line).unwrap();
    let text = |name: &str| line[name].as_str().unwrap().to_owned();
    Delivery {
        id: text("id"),
        event: text("event"),
        repository: text("key"),
        body: line["payload"].to_string(),
    }
}

/// Most of one repository, some of many, some of none; the last five repeat the first.
fn made(number: usize) -> Delivery {
    let number = number % (MANY - 5);
    let repository = match number % 10 {
        0..6 => "octo/busy".to_owned(),
        6..9 => format!("octo/quiet-{}", number % 31),
        _ => "none".to_owned(),
    };
    let mut body = json!({ "number": number, "text": "ünïcode \u{1f980}".repeat(number) });
    if repository != "none" {
        body["repository"] = json!({ "full_name": repository });
    }
    Delivery {
        id: format!("00000000-0000-4000-8000-{number:012}"),
        event: ["push", "issues", "star"][number % 3].to_owned(),
        repository,
        body: body.to_string(),
    }
}

/// How many different ones there are, by repository and event.
pub(crate) fn totals(deliveries: &[Delivery]) -> BTreeMap<(String, String), i64> {
    let mut seen = BTreeSet::new();
    let mut totals = BTreeMap::new();
    for delivery in deliveries.iter().filter(|delivery| seen.insert(&delivery.id)) {
        let place = (delivery.repository.clone(), delivery.event.clone());
        *totals.entry(place).or_default() += 1;
    }
    totals
}

#[test]
fn should_repeat_five_of_329_when_webhooks_are_made_as_when_they_are_real() {
    let made: Vec<_> = (0..MANY).map(made).collect();
    for deliveries in [all(), made] {
        let totals = totals(&deliveries);
        assert_eq!(totals.values().sum::<i64>(), 324);
        let repositories: BTreeSet<_> = totals.keys().map(|(repository, _)| repository).collect();
        assert!(repositories.len() > 10, "{repositories:?}");
    }
}
