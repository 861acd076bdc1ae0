//! That the dashboard and the alerts ask for metrics and labels that there are.

use std::collections::BTreeSet;

use super::{ALL, MetricKind, MetricSpec};

const DASHBOARD: &str = include_str!("../../../../docs/operations/grafana.json");
const ALERTS: &str = include_str!("../../../../docs/operations/alerts.yml");

/// The labels that a collector adds, and that of a histogram's buckets.
const ADDED: [&str; 3] = ["job", "instance", "le"];

/// The metrics that an expression names; a histogram by one of the series that Prometheus makes of it.
fn named_in(expression: &str) -> Vec<&'static MetricSpec> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("headless_"))
        .map(|word| {
            let found = ALL.iter().find(|metric| match metric.kind {
                MetricKind::Histogram => word
                    .strip_prefix(metric.name)
                    .is_some_and(|rest| ["_bucket", "_count", "_sum"].contains(&rest)),
                _ => word == metric.name,
            });
            found.unwrap_or_else(|| panic!("no metric has the series {word}: {expression}"))
        })
        .collect()
}

/// What is between these two, each time.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    let pieces = text.split(open).skip(1);
    pieces
        .map(|piece| piece.split_once(close).map_or(piece, |(inner, _)| inner))
        .collect()
}

/// The labels by which an expression sums.
fn summed_by(expression: &str) -> BTreeSet<&str> {
    let lists = between(expression, "by (", ")").into_iter();
    lists.flat_map(|list| list.split(", ")).collect()
}

/// Asserts that each label is one of the metric that it is asked of, and that no label is shown that a sum has dropped.
fn check(expression: &str, shown: &[&str]) -> Vec<&'static MetricSpec> {
    let metrics = named_in(expression);
    assert!(!metrics.is_empty(), "it asks for nothing of ours: {expression}");
    let has = |metric: &MetricSpec, label: &str| ADDED.contains(&label) || metric.labels.contains(&label);
    let summed = summed_by(expression);
    for label in &summed {
        let all = metrics.iter().all(|metric| has(metric, label));
        assert!(all, "{label:?} is no label of all that is summed: {expression}");
    }
    let mut pieces = expression.split('{');
    let mut before = pieces.next().unwrap_or_default();
    for piece in pieces {
        let (matchers, after) = piece.split_once('}').unwrap();
        let of = *named_in(before).last().unwrap();
        for label in matchers
            .split(',')
            .filter_map(|matcher| matcher.split(['=', '!']).next())
        {
            assert!(
                has(of, label.trim()),
                "{label:?} is no label of {}: {expression}",
                of.name
            );
        }
        before = after;
    }
    for label in shown {
        assert!(
            summed.contains(label),
            "{label:?} is shown and not kept: {expression}"
        );
    }
    metrics
}

#[test]
fn should_show_every_metric_on_the_dashboard_by_labels_that_it_has() {
    let board: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut seen = BTreeSet::new();
    let panels = board["panels"].as_array().unwrap();
    for target in panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten()
    {
        let legend = target["legendFormat"].as_str().unwrap();
        let metrics = check(target["expr"].as_str().unwrap(), &between(legend, "{{", "}}"));
        seen.extend(metrics.iter().map(|metric| metric.name));
    }
    let all: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(seen, all, "what the dashboard shows, and what there is");
}

#[test]
fn should_alert_on_metrics_and_labels_that_there_are() {
    let rules: Vec<_> = ALERTS.split("- alert: ").skip(1).collect();
    assert!(!rules.is_empty());
    for rule in rules {
        let (_, expression) = rule.split_once("expr:").unwrap();
        let (expression, rest) = expression.split_once("\n        labels:").unwrap();
        let expression = expression
            .split("\n        for:")
            .next()
            .unwrap()
            .trim_start_matches([' ', '>', '-', '\n']);
        let shown: Vec<_> = between(rest, "$labels.", " ")
            .into_iter()
            .map(|word| word.trim_end_matches('}'))
            .collect();
        check(expression, &shown);
        let (_, page) = rest.split_once("runbook: docs/").unwrap();
        let (page, place) = page.trim().split_once('#').unwrap_or((page.trim(), ""));
        let text = match page {
            "operations.md" => include_str!("../../../../docs/operations.md"),
            "dead-letters.md" => include_str!("../../../../docs/dead-letters.md"),
            "membership.md" => include_str!("../../../../docs/membership.md"),
            other => panic!("no such page: {other}"),
        };
        let found = text
            .lines()
            .filter_map(|line| line.strip_prefix("## "))
            .any(|title| title.to_lowercase().replace(' ', "-") == place);
        assert!(place.is_empty() || found, "{page} has no part {place}");
    }
}
