//! What one text says, or all variables: keys, values, and where each stands.

use std::sync::Arc;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::keys::Key;
use crate::{Source, settings::Written};

/// One value, and where it stands.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) written: Written,
    pub(super) source: Source,
}

/// What one text says, or all variables.
#[derive(Clone, Default)]
pub(super) struct Layer {
    name: Arc<str>,
    entries: Vec<Entry>,
}

impl Layer {
    /// What this text says. A text that is no TOML says nothing, and each of its mistakes is a problem.
    pub(super) fn of_toml(name: &Arc<str>, text: &str, problems: &mut Vec<String>) -> Self {
        let mut layer = Self {
            name: name.clone(),
            entries: Vec::new(),
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            // The error's own `Display` shows the line, which may hold a secret.
            let line = error.span().map_or(1, |span| line(text, span.start));
            problems.push(format!("{name}, line {line}: {}", error.message()));
        }
        if errors.is_empty() {
            let mut path = Vec::new();
            layer.add_table(text, table.get_ref(), &mut path);
            // In the order in which it was written, so that problems are too.
            layer.entries.sort_by_key(|entry| match entry.source {
                Source::File { line, .. } => line,
                _ => 0,
            });
        }
        layer
    }

    fn add_table(&mut self, text: &str, table: &DeTable<'_>, path: &mut Vec<String>) {
        for (key, value) in table {
            path.push(key.get_ref().clone().into_owned());
            match value.get_ref() {
                DeValue::Table(table) if !table.is_empty() => self.add_table(text, table, path),
                // A heading with nothing under it, as when all of it is commented out.
                DeValue::Table(_) if Key::is_heading(path) => {}
                _ => self.entries.push(Entry {
                    key: Key::of_toml(path),
                    written: written(value),
                    source: Source::File {
                        name: self.name.clone(),
                        line: line(text, key.span().start),
                    },
                }),
            }
            path.pop();
        }
    }

    /// Adds a variable, in place of an earlier one of the same name.
    pub(super) fn add_variable(&mut self, name: &str, words: &str, value: String) {
        let entry = Entry {
            key: Key::of_variable(words),
            written: Written::Variable(value),
            source: Source::Variable(name.into()),
        };
        self.entries.retain(|other| other.source != entry.source);
        self.entries.push(entry);
    }

    /// What the text is called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// In the order in which they were written.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

fn written(value: &Spanned<DeValue<'_>>) -> Written {
    match value.get_ref() {
        DeValue::String(text) => Written::Text(text.clone().into_owned()),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Written::Number(number.to_string()),
            // More digits than any setting takes: refused where it is read.
            Err(_) => Written::Number(number.as_str().to_owned()),
        },
        DeValue::Boolean(value) => Written::Boolean(*value),
        DeValue::Float(_) => Written::Other("a number with a fraction"),
        DeValue::Datetime(_) => Written::Other("a date or a time"),
        DeValue::Array(_) => Written::Other("an array"),
        DeValue::Table(_) => Written::Empty,
    }
}

/// The line of this byte, from 1.
fn line(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
