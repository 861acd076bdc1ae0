//! What a node is called when nobody names it.

use std::{fs, process};

/// Host and process id: a label for people, never an identity.
pub(crate) fn default_label() -> String {
    format!("{}-{}", host(), process::id())
}

fn host() -> String {
    // The standard library does not know the host's name; these files do, on Linux and on most Unixes.
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .map(|name| name.trim().to_owned())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}
