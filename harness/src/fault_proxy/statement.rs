//! Whether SQL commits.

/// Whether one of these statements is `COMMIT` or `END`. What stands in quotes and in comments does not count.
pub(super) fn commits(sql: &[u8]) -> bool {
    let mut rest = sql;
    let mut statement = Vec::new();
    loop {
        let Some(&byte) = rest.first() else {
            return is_commit(&statement);
        };
        let skipped = match byte {
            b'\'' if has_escapes(&statement) => after_escapes(&rest[1..]),
            b'\'' | b'"' => after(&rest[1..], &[byte]),
            b'-' if rest.starts_with(b"--") => after(rest, b"\n"),
            b'/' if rest.starts_with(b"/*") => after_comment(rest),
            b'$' if !ends_in_a_word(&statement) => {
                dollar_quote(rest).and_then(|tag| after(&rest[tag.len()..], tag))
            }
            _ => None,
        };
        match skipped {
            Some(left) => {
                statement.push(b' ');
                rest = left;
                continue;
            }
            // The end of what never ends.
            None if matches!(byte, b'\'' | b'"') || rest.starts_with(b"--") || rest.starts_with(b"/*") => {
                return is_commit(&statement);
            }
            None => {}
        }
        if byte == b';' {
            if is_commit(&statement) {
                return true;
            }
            statement.clear();
        } else {
            statement.push(byte);
        }
        rest = &rest[1..];
    }
}

fn is_commit(statement: &[u8]) -> bool {
    let mut words = statement
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default();
    let commits = first.eq_ignore_ascii_case(b"commit") || first.eq_ignore_ascii_case(b"end");
    // The second half of a two-phase commit ends another transaction than the connection's.
    commits
        && !words
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case(b"prepared"))
}

/// Whether the quote that follows has escapes with a backslash: it is `E'..'`.
fn has_escapes(before: &[u8]) -> bool {
    match before {
        [word @ .., b'e' | b'E'] => !ends_in_a_word(word),
        _ => false,
    }
}

/// Whether what follows belongs to the word before it.
fn ends_in_a_word(before: &[u8]) -> bool {
    before
        .last()
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..))
}

/// What comes after the end of a quote with escapes, in which a quote may be doubled too.
fn after_escapes(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text;
    loop {
        rest = match rest {
            [b'\\', _, left @ ..] | [b'\'', b'\'', left @ ..] => left,
            [b'\'', left @ ..] => return Some(left),
            [_, left @ ..] => left,
            [] => return None,
        };
    }
}

/// What comes after a comment, in which there may be others.
fn after_comment(text: &[u8]) -> Option<&[u8]> {
    let (mut rest, mut depth) = (text, 0_usize);
    loop {
        rest = match rest {
            [b'/', b'*', left @ ..] => {
                depth += 1;
                left
            }
            [b'*', b'/', left @ ..] if depth == 1 => return Some(left),
            [b'*', b'/', left @ ..] => {
                depth -= 1;
                left
            }
            [_, left @ ..] => left,
            [] => return None,
        };
    }
}

/// What comes after the first `end`.
fn after<'a>(text: &'a [u8], end: &[u8]) -> Option<&'a [u8]> {
    let at = text.windows(end.len()).position(|window| window == end)?;
    Some(&text[at + end.len()..])
}

/// The `$tag$` with which this begins.
fn dollar_quote(text: &[u8]) -> Option<&[u8]> {
    let length = text[1..]
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'))?;
    (text[1 + length] == b'$').then(|| &text[..length + 2])
}

#[cfg(test)]
mod tests {
    use super::commits;

    #[test]
    fn should_know_what_commits() {
        for sql in [
            "COMMIT",
            " commit ;",
            "end transaction",
            "-- why\nunlisten headless; commit",
            "select 'a;b'; Commit Work",
            "select $1; commit and no chain",
            "/* ; */commit",
            "commit -- and that is all",
            r"select E'\''; commit",
            r"select e'it''s \\'; commit",
            r"select 'C:\'; commit",
            r"select type'C:\'; commit",
            "/* /* ; */ */ commit",
            "select a$x$; commit",
        ] {
            assert!(commits(sql.as_bytes()), "{sql}");
        }
    }

    #[test]
    fn should_know_what_does_not_commit() {
        for sql in [
            "",
            "rollback",
            "select 'x; commit'",
            "-- commit",
            "/* ; commit */ select 1",
            "do $$ begin commit; end $$",
            "do $x$ ; commit; $y$ ; end $x$",
            "commit prepared 'x'",
            "select \"; end\"",
            "begin; select commit from t",
            "select 'never ends; commit",
            r"select E'\'; commit'",
            r"select E'it''s \'; commit'",
            r"select E'never ends\'; commit",
            "/* /* */ ; commit */",
        ] {
            assert!(!commits(sql.as_bytes()), "{sql}");
        }
    }
}
