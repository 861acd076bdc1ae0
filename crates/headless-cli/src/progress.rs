//! Live progress on standard error; nothing where that is no terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A line that says how many of `total` are done, or how many there are when nobody knows.
pub(crate) fn line(total: Option<u64>, done: &str) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{bar:30} {pos}/{len}"),
        None => (ProgressBar::no_length(), "{spinner} {pos}"),
    };
    let template = format!("{template} {done} in {{elapsed}} {{msg}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
