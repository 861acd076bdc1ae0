//! Starts members, and takes one of them away: threads of this process, or processes.

use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed};
use std::{convert::Infallible, env, future::Future, future::pending, process::Stdio, thread};

use anyhow::{Context as _, Result, ensure};
use headless::{AnyStore, AnyTransport, Memory, Providers, Sandbox};
use indicatif::ProgressBar;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::{process::Command, runtime::Builder, sync::mpsc};

use super::member::{self, HANDLED, LEASE};
use crate::{cli::Role, urls};

/// The servers, as one member is connected to them.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) store: AnyStore,
    pub(super) transport: AnyTransport,
}

impl Place {
    pub(super) async fn connect(providers: &Providers, [store, transport]: &[String; 2]) -> Result<Self> {
        let (store, transport) = urls::connect(providers, Some(store), Some(transport)).await?;
        let (store, transport) = store.zip(transport).context("there is a URL for each")?;
        Ok(Self { store, transport })
    }

    /// What of it is in memory, where no other process can use it.
    pub(super) fn memory(&self) -> impl Iterator<Item = Memory> {
        [self.store.typed(), self.transport.typed()].into_iter().flatten()
    }
}

/// The URL of a place that is in `sandbox`. A database there soon ends transactions of threads that were taken away.
pub(super) fn url(sandbox: &Sandbox, server: &str) -> String {
    let url = sandbox.url(server);
    match url.contains("schema=") {
        true => format!("{url}&idle_in_transaction_timeout={}s", LEASE.as_secs()),
        false => url,
    }
}

/// What the members have in common.
pub(super) struct Crew<'a> {
    pub(super) providers: Providers,
    urls: &'a [String; 2],
    bar: ProgressBar,
    /// How many messages are to be handled until one takes its member away.
    left: Arc<AtomicU64>,
}

impl<'a> Crew<'a> {
    /// With a crash after so many handled messages, or none for 0.
    pub(super) fn new(urls: &'a [String; 2], bar: ProgressBar, crash_after: u64) -> Self {
        let (providers, left) = (Providers::builtin(), Arc::new(crash_after.into()));
        Self {
            providers,
            urls,
            bar,
            left,
        }
    }

    /// To be called for each handled message. It says whether the member that did it is to go.
    fn toll(&self) -> impl Fn() -> bool + Clone + Send + Sync + use<> {
        let (bar, left) = (self.bar.clone(), self.left.clone());
        move || {
            bar.inc(1);
            let goes = left.fetch_sub(1, Relaxed) == 1;
            goes.then(|| bar.set_message("(one member was taken away)"))
                .is_some()
        }
    }

    /// Runs a member on a thread until it has ended and says its figures. `None` when it was taken away, at the worst
    /// moment: committed, and not acknowledged. Its handles are severed then, and all else of it stays as it is for ever.
    pub(super) async fn thread(
        &self,
        until: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Option<Value>> {
        let (tell, mut told) = mpsc::unbounded_channel();
        let (providers, urls, toll, gone) = (
            self.providers.clone(),
            self.urls.clone(),
            self.toll(),
            tell.clone(),
        );
        let handled = move |place: &Place| {
            if toll() {
                place.memory().for_each(|memory: Memory| memory.sever());
                drop(gone.send(Ok(None)));
                loop {
                    thread::park();
                }
            }
        };
        let serving = async move {
            let place = Place::connect(&providers, &urls).await?;
            member::serve(Role::Member, place, handled, until).await
        };
        thread::Builder::new().spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            let ended = runtime
                .map_err(Into::into)
                .and_then(|runtime| runtime.block_on(serving));
            drop(tell.send(ended.map(Some)));
        })?;
        told.recv().await.context("a member panicked")?
    }

    /// The same with a process, which ends when its input has ended, and is taken away by SIGKILL.
    pub(super) async fn process(&self, until: impl Future<Output = ()>) -> Result<Option<Value>> {
        let ([store, transport], toll) = (self.urls, self.toll());
        let mut child = Command::new(env::current_exe()?)
            .args([
                "demo-member",
                "--role=member",
                "--store",
                store,
                "--transport",
                transport,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (input, output) = child
            .stdin
            .take()
            .zip(child.stdout.take())
            .context("both are pipes")?;
        let closing = async move {
            until.await;
            drop(input);
            pending::<Infallible>().await
        };
        let listening = async {
            let (mut lines, mut last) = (BufReader::new(output).lines(), String::new());
            while let Some(line) = lines.next_line().await? {
                if line == HANDLED && toll() {
                    return Ok(child.kill().await.map(|()| None)?);
                }
                last = line;
            }
            ensure!(child.wait().await?.success(), "a process of this demo failed");
            Ok(Some(serde_json::from_str(&last)?))
        };
        tokio::select! {
            biased;
            told = listening => told,
            never = closing => match never {},
        }
    }
}
