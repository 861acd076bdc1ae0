//! What `docs/adding-a-provider.md` shows is this crate's own source.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

const PAGE: &str = include_str!("../../../docs/adding-a-provider.md");

/// `<!-- toy: path#region -->` stands before a block that shows a region, or without `#` a whole file.
fn shown() -> BTreeMap<String, String> {
    let mut blocks = BTreeMap::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        let marker = line.strip_prefix("<!-- toy: ");
        let Some(of) = marker.and_then(|rest| rest.strip_suffix(" -->")) else {
            continue;
        };
        let fence = lines.next().unwrap_or_default();
        assert!(fence.starts_with("```"), "no block follows the marker of {of}");
        let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        blocks.insert(of.to_owned(), block.join("\n"));
    }
    blocks
}

/// The lines between `page: name` and `page: end`, without the indentation that they share.
fn regions(source: &str) -> BTreeMap<String, String> {
    let mut regions = BTreeMap::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let Some((_, name)) = line.split_once(" page: ") else {
            continue;
        };
        let region: Vec<_> = lines
            .by_ref()
            .take_while(|line| !line.ends_with(" page: end"))
            .collect();
        let indent = region
            .iter()
            .filter(|line| !line.is_empty())
            .map(|line| line.len() - line.trim_start().len())
            .min();
        let cut = |line: &&str| line.get(indent.unwrap_or(0)..).unwrap_or_default().to_owned();
        regions.insert(
            name.to_owned(),
            region.iter().map(cut).collect::<Vec<_>>().join("\n"),
        );
    }
    regions
}

fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
}

#[test]
fn should_show_the_source_when_the_page_quotes_it() {
    let shown = shown();
    assert!(!shown.is_empty(), "the page quotes nothing");
    for (of, block) in &shown {
        let source = match of.split_once('#') {
            Some((path, region)) => regions(&read(path).expect(of)).remove(region).expect(of),
            None => read(of).expect(of).trim_end().to_owned(),
        };
        assert_eq!(*block, source, "{of}, as the page shows it and as it is");
    }
}

#[test]
fn should_leave_no_region_unquoted_when_marked() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut marked = BTreeSet::new();
    for file in fs::read_dir(root.join("src")).expect("the sources") {
        let path = format!("src/{}", file.expect("a source").file_name().display());
        marked.extend(
            regions(&read(&path).expect(&path))
                .into_keys()
                .map(|name| format!("{path}#{name}")),
        );
    }
    let shown: BTreeSet<_> = shown().into_keys().filter(|of| of.starts_with("src/")).collect();
    assert_eq!(marked, shown, "what the sources mark, and what the page shows");
}
