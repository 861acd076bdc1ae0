//! Processes of this command. Each is told by the end of its standard input that it may come to its end, so that none
//! outlives the process that started it for long.

use std::{env, io, process::Stdio, thread};

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;
use tokio::{process::Command, sync::watch};

/// Runs one with these arguments on the servers at these URLs, lets it end once `until` has no sender any more, and
/// reads the last line of what it said. Dropping the future kills it.
pub(crate) async fn run<T: DeserializeOwned>(
    args: &[&str],
    [store, transport]: &[String; 2],
    mut until: watch::Receiver<()>,
) -> Result<T> {
    let mut child = Command::new(env::current_exe()?)
        .args(args)
        .args(["--store", store, "--transport", transport])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let input = child.stdin.take();
    tokio::select! {
        biased;
        // One that ends of itself has failed; standard error has said why.
        status = child.wait() => ensure!(status?.success(), "a process of this demo failed"),
        () = ended(&mut until) => {}
    }
    drop(input);
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "a process of this demo failed");
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said
        .lines()
        .last()
        .context("a process of this demo said nothing")?;
    Ok(serde_json::from_str(last)?)
}

/// In such a process: the receiver has no sender any more once it may come to its end.
pub(crate) fn until_told() -> watch::Receiver<()> {
    let (sender, until) = watch::channel(());
    // On a thread of its own: a read cannot be cancelled, and the runtime would wait for it at its end.
    thread::spawn(move || {
        let _read = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drop(sender);
    });
    until
}

/// Waits until there is no sender any more.
pub(crate) async fn ended(until: &mut watch::Receiver<()>) {
    while until.changed().await.is_ok() {}
}
