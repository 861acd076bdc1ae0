//! Text of others, as a terminal may show it.

use std::fmt::Write;

/// How much of a payload that is no text is shown, in bytes.
const SHOWN: usize = 512;

/// The text on one line: what would move a terminal's cursor, or change the direction in which it writes, is escaped.
pub(crate) fn line(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => {
                safe.extend(c.escape_unicode());
            }
            c if c.is_control() => safe.extend(c.escape_default()),
            c => safe.push(c),
        }
    }
    safe
}

/// As [`line`], and at most so many characters of it.
pub(crate) fn short(text: &str, most: usize) -> String {
    let safe = line(text);
    match safe.char_indices().nth(most) {
        Some(_) => safe.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        None => safe,
    }
}

/// A payload, over several lines where it is JSON or text.
pub(crate) fn payload(payload: &[u8]) -> String {
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(payload) {
        return lines(&format!("{value:#}"));
    }
    match std::str::from_utf8(payload) {
        Ok(text) => lines(text),
        Err(_) => {
            let rest = payload.len().saturating_sub(SHOWN);
            let mut shown = hex(&payload[..payload.len().min(SHOWN)]);
            if rest > 0 {
                shown.push_str(&format!("… and {rest} bytes more: `--payload` prints all"));
            }
            shown
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a text does not fail.
        let _written = write!(digits, "{byte:02x}");
    }
    digits
}

fn lines(text: &str) -> String {
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Rows as columns; the last one is as wide as it likes.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let head = head.map(str::to_owned);
    for row in std::iter::once(&head).chain(rows) {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_escape_what_would_steer_a_terminal_when_shown() {
        assert_eq!(line("a\u{1b}[2J\r\nb\u{202e}c"), r"a\u{1b}[2J\r\nb\u{202e}c");
        assert_eq!(payload(b"one\ntwo\x1b"), "one\ntwo\\u{1b}");
        assert_eq!(payload(b"{\"a\":[1]}"), "{\n  \"a\": [\n    1\n  ]\n}");
        assert_eq!(payload(b"\xff\x00"), "ff00");
        let long = payload(&[0xff; 600]);
        assert!(
            long.ends_with("ff… and 88 bytes more: `--payload` prints all"),
            "{long}"
        );
    }

    #[test]
    fn should_keep_to_its_width_when_shortened_and_lined_up() {
        assert_eq!(short("Zürich", 6), "Zürich");
        assert_eq!(short("Zürich 東京", 6), "Züric…");
        let rows = [["1".to_owned(), "x".to_owned()], ["22".to_owned(), String::new()]];
        assert_eq!(table(["N", "WHAT"], &rows), "N   WHAT\n1   x\n22\n");
    }
}
