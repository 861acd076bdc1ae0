//! The commands that the pages show can be given so.

use std::{fs, path::Path, process::Command};

/// The lines of code blocks that begin with the command, `$ ` before it or not.
fn shown(page: &str) -> Vec<String> {
    let mut in_block = false;
    let mut found = Vec::new();
    for line in page.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        }
        let line = line.trim_start_matches("$ ");
        if in_block && line.starts_with("headless ") && !line.starts_with("headless =") {
            found.push(line.to_owned());
        }
    }
    found
}

#[test]
fn should_be_understood_when_a_page_shows_a_command() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![root.join("README.md")];
    for folder in ["docs", "docs/providers"] {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        pages.extend(
            entries
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.is_file()),
        );
    }
    let mut commands = 0;
    for page in pages {
        for line in shown(&fs::read_to_string(&page).unwrap()) {
            commands += 1;
            let line = line.split(" > ").next().unwrap().replace('…', "");
            // Ids of a length, in the place of those that are cut short.
            let words = line.split_whitespace().skip(1).map(|word| match word {
                "7f0c" | "19ab" => "7f0c0000-0000-4000-8000-000000000000".to_owned(),
                word => word.trim_matches('"').to_owned(),
            });
            let output = Command::new(env!("CARGO_BIN_EXE_headless"))
                .args(words)
                .arg("--help")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {line}: {said}", page.display());
        }
    }
    assert!(commands > 8, "the pages were read: {commands}");
}
