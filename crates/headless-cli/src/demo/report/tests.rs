use serde_json::json;

use super::*;

#[test]
fn should_count_the_rows_that_overtook_when_the_order_is_broken() {
    let count = |lines: &[(&str, &str)]| {
        let rows = lines
            .iter()
            .map(|(line, key)| json!({ "line": line, "key": key }));
        overtaking(&rows.collect::<Vec<_>>())
    };
    assert_eq!(count(&[("1", "a"), ("3", "b"), ("2", "a"), ("4", "b")]), 0);
    assert_eq!(count(&[("2", "a"), ("3", "a"), ("1", "a"), ("4", "a")]), 2);
}
