use super::*;

#[test]
fn should_count_the_rows_that_overtook_when_the_order_is_broken() {
    let row = |(line, key): (&str, &str)| Row {
        line: line.to_owned(),
        key: key.to_owned(),
        idempotency_key: String::new(),
        message: String::new(),
    };
    let count = |lines: &[(&str, &str)]| overtaking(&lines.iter().copied().map(row).collect::<Vec<_>>());
    assert_eq!(count(&[("1", "a"), ("3", "b"), ("2", "a"), ("4", "b")]), 0);
    assert_eq!(count(&[("2", "a"), ("3", "a"), ("1", "a"), ("4", "a")]), 2);
}
