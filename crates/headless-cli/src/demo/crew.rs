//! Starts members, and takes one of them away: threads of this process, or processes.

use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed};
use std::{env, future::Future};

use anyhow::{Context as _, Result};
use headless::testing::{Ended, in_process, on_thread};
use headless::{AnyStore, AnyTransport, Memory, Providers, Sandbox};
use indicatif::ProgressBar;
use tokio::process::Command;

use super::{
    Figures,
    member::{self, HANDLED, LEASE},
};
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
    fn memory(&self) -> impl Iterator<Item = Memory> {
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

/// Starts members, and takes one of them away.
pub(super) struct Crew<'a> {
    urls: &'a [String; 2],
    /// Where all threads find the same servers in memory.
    pub(super) providers: Providers,
    bar: ProgressBar,
    /// How many messages are to be handled until one takes its member away.
    left: Arc<AtomicU64>,
}

impl<'a> Crew<'a> {
    /// With a crash after so many handled messages, or none for 0.
    pub(super) fn new(urls: &'a [String; 2], bar: ProgressBar, crash_after: u64) -> Self {
        let (providers, left) = (Providers::builtin(), Arc::new(crash_after.into()));
        Self {
            urls,
            providers,
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

    /// Runs a member until it has ended or was taken away, at the worst moment: committed, and not acknowledged.
    pub(super) async fn start(
        &self,
        place: &Place,
        until: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Ended<Figures>> {
        let (toll, urls, providers) = (self.toll(), self.urls.clone(), self.providers.clone());
        if place.memory().next().is_none() {
            let mut command = Command::new(env::current_exe()?);
            let [store, transport] = &urls;
            command.args([
                "demo-member",
                "--role=member",
                "--store",
                store,
                "--transport",
                transport,
            ]);
            return Ok(
                match in_process(&mut command, until, |line| line == HANDLED && toll()).await? {
                    Ended::Done(told) => Ended::Done(serde_json::from_str(&told)?),
                    Ended::TakenAway => Ended::TakenAway,
                },
            );
        }
        let ended = on_thread(async move |crash| {
            let place = Place::connect(&providers, &urls).await?;
            let handled = move |place: &Place| {
                if toll() {
                    place.memory().for_each(|memory| memory.sever());
                    crash.now();
                }
            };
            member::serve(Role::Member, place, handled, until).await
        });
        Ok(match ended.await? {
            Ended::Done(told) => Ended::Done(told?),
            Ended::TakenAway => Ended::TakenAway,
        })
    }
}
