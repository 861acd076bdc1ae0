//! The README keeps what it promises; that its quickstart runs is tested with the documentation.

#[test]
fn should_be_at_most_forty_lines_without_hidden_ones_when_it_is_the_quickstart() {
    let readme = include_str!("../../../README.md");
    let (_, rest) = readme.split_once("```rust\n").expect("a quickstart");
    let (quickstart, _) = rest.split_once("```").expect("its end");
    let lines: Vec<_> = quickstart.lines().collect();
    assert!(lines.len() <= 40, "{} lines", lines.len());
    assert!(
        lines.iter().all(|line| !line.trim_start().starts_with("# ")),
        "{quickstart}"
    );
}
