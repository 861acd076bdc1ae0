//! The layers of the workspace, by normal and build dependencies: abstractions know nobody, core crates know
//! abstractions and `headless-core`, providers know abstractions alone.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Each crate of ours and the crates that it may depend on, of ours and of others. Dev-dependencies are free.
type Graph = BTreeMap<String, BTreeSet<String>>;

const CORE: [&str; 5] = [
    "headless-messaging",
    "headless-ticker",
    "headless-coordination",
    "headless-saga",
    "headless-dashboard",
];
const PROVIDERS: [&str; 7] = [
    "headless-memory",
    "headless-sqlite",
    "headless-postgres",
    "headless-redis",
    "headless-kafka",
    "headless-rabbitmq",
    "headless-nats",
];
/// What is no runtime, no client and no provider, and may therefore stand in the driver traits.
const OF_ABSTRACTIONS: [&str; 4] = ["async-trait", "bytes", "chrono", "uuid"];

fn broken(graph: &Graph) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, dependencies) in graph {
        let ours: BTreeSet<&str> = dependencies
            .iter()
            .map(String::as_str)
            .filter(|name| name.starts_with("headless"))
            .collect();
        let allowed: BTreeSet<&str> = match name.as_str() {
            "headless-abstractions" => {
                for other in dependencies
                    .iter()
                    .filter(|other| !OF_ABSTRACTIONS.contains(&other.as_str()))
                {
                    broken.push(format!("{name} depends on {other}: it may know data types alone"));
                }
                continue;
            }
            "headless-core" => BTreeSet::from(["headless-abstractions"]),
            core if CORE.contains(&core) => BTreeSet::from(["headless-abstractions", "headless-core"]),
            provider if PROVIDERS.contains(&provider) => BTreeSet::from(["headless-abstractions"]),
            // The facade, the command, the harness and examples stand on top of everything.
            _ => continue,
        };
        for wrong in ours.difference(&allowed) {
            broken.push(format!(
                "{name} depends on {wrong}: it may know {allowed:?} alone"
            ));
        }
    }
    broken
}

#[expect(clippy::expect_used, reason = "without metadata nothing can be shown")]
fn workspace() -> Graph {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .exec()
        .expect("cargo metadata");
    metadata
        .packages
        .iter()
        .map(|package| {
            let dependencies = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind != DependencyKind::Development)
                .map(|dependency| dependency.name.clone());
            (package.name.to_string(), dependencies.collect())
        })
        .collect()
}

fn graph(edges: &[(&str, &[&str])]) -> Graph {
    edges
        .iter()
        .map(|(name, dependencies)| {
            (
                (*name).to_owned(),
                dependencies.iter().map(|d| (*d).to_owned()).collect(),
            )
        })
        .collect()
}

#[test]
fn should_hold_in_this_workspace() {
    let workspace = workspace();
    assert!(workspace.contains_key("headless-abstractions") && workspace.contains_key("headless-memory"));
    assert_eq!(broken(&workspace), Vec::<String>::new());
}

#[test]
fn should_find_each_broken_layer_when_one_is_broken() {
    let wrong = [
        graph(&[("headless-abstractions", &["tokio"])]),
        graph(&[("headless-abstractions", &["headless-core"])]),
        graph(&[("headless-core", &["headless-memory"])]),
        graph(&[("headless-messaging", &["headless-core", "headless-memory"])]),
        graph(&[("headless-messaging", &["headless-ticker"])]),
        graph(&[("headless-memory", &["headless-core"])]),
        graph(&[("headless-postgres", &["headless-memory"])]),
    ];
    for graph in wrong {
        assert_eq!(broken(&graph).len(), 1, "{graph:?}");
    }
    assert!(
        broken(&graph(&[(
            "headless",
            &["headless-memory", "headless-messaging"]
        )]))
        .is_empty()
    );
}
