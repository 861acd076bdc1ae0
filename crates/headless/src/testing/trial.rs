//! A trial of an application: members at work on servers, one of which is taken away.

use std::{
    fmt,
    future::Future,
    io,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use headless_abstractions::Result;
use serde::de::DeserializeOwned;
use tokio::{process::Command, task::JoinSet};

use super::member::{Crash, Ended, in_process, on_thread};
use crate::{AnyStore, AnyTransport, Providers, Sandbox};

/// What a process says of each message that it has handled.
const HANDLED: &str = "handled";
/// A database ends transactions of a thread that was taken away after this time: their connections are still there.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(2);

/// A trial of an application: members at work on a store and a transport, each in a [`Sandbox`] of this trial, one of which is
/// taken away at the worst moment and replaced.
///
/// Where one of the servers is in memory (`memory:`), members are threads of this process ([`on_thread`]), and otherwise
/// processes ([`in_process`]).
#[derive(Clone, Debug)]
pub struct Trial {
    sandbox: Sandbox,
    urls: [String; 2],
    providers: Providers,
    toll: Toll,
}

impl Trial {
    /// On the servers at the URLs of a store and of a transport.
    #[must_use]
    pub fn new(servers: [&str; 2]) -> Self {
        let sandbox = Sandbox::new();
        let urls = servers.map(|server| place(&sandbox, server));
        Self {
            sandbox,
            urls,
            providers: Providers::builtin(),
            toll: Toll::default(),
        }
    }

    /// Takes the member away that handles the message of this number, counted over all of them. 0, the default: none.
    #[must_use]
    pub fn crash_after(mut self, handled: u64) -> Self {
        self.toll.left = Arc::new(handled.into());
        self
    }

    /// Calls this for each message that is told as handled, and says whether its member was taken away for it.
    #[must_use]
    pub fn watched_by(mut self, watch: impl Fn(bool) + Send + Sync + 'static) -> Self {
        self.toll.watch = Some(Arc::new(watch));
        self
    }

    /// Whether a member was taken away: not if fewer messages were handled than [`crash_after`](Self::crash_after) says.
    #[must_use]
    pub fn took_one_away(&self) -> bool {
        self.toll.took.load(Relaxed)
    }

    /// The places of this trial: the URL of the store and that of the transport.
    #[must_use]
    pub const fn urls(&self) -> &[String; 2] {
        &self.urls
    }

    /// What connects to them. Servers in memory are the same for all who connect through this.
    #[must_use]
    pub const fn providers(&self) -> &Providers {
        &self.providers
    }

    /// Runs so many members until all have ended by themselves, and gives what they say. Instead of one that was taken away
    /// another is started.
    ///
    /// A member on a thread is what `serve` does. A member that is a process is started by `command`, uses
    /// [`Handled::to_parent`], ends some time after its standard input has ended, which it does when `until` is ready, and
    /// says what it has to say as JSON in its last line on standard output.
    ///
    /// # Errors
    /// The first that a member answers, or what starting and listening to it does. The others are left to themselves if they
    /// are threads, and killed if they are processes.
    ///
    /// # Cancel safety
    /// A future that is dropped leaves threads to themselves and kills processes.
    pub async fn run<T, E, W>(
        &self,
        members: usize,
        until: impl Future<Output = ()> + Clone + Send + 'static,
        command: impl Fn() -> io::Result<Command>,
        serve: impl Fn(Handled) -> W + Clone + Send + 'static,
    ) -> Result<Vec<T>, E>
    where
        T: DeserializeOwned + Send + 'static,
        E: From<io::Error> + Send + 'static,
        W: Future<Output = Result<T, E>> + 'static,
    {
        let in_memory = self.urls.iter().any(|url| url.starts_with("memory:"));
        let mut running = JoinSet::new();
        let mut told = Vec::with_capacity(members);
        let mut missing = members;
        loop {
            for _ in 0..std::mem::take(&mut missing) {
                let toll = self.toll.clone();
                if in_memory {
                    running.spawn(thread(toll, serve.clone()));
                } else {
                    running.spawn(process(toll, command()?, until.clone()));
                }
            }
            match running.join_next().await {
                Some(Ok(ended)) => match ended? {
                    Ended::Done(said) => told.push(said),
                    Ended::TakenAway => missing = 1,
                },
                Some(Err(panicked)) => return Err(io::Error::other(panicked).into()),
                None => return Ok(told),
            }
        }
    }

    /// Removes what the trial made, with everything in it. What is in memory goes with its last handle instead.
    ///
    /// # Errors
    /// The first of what removing either answers; both are tried.
    ///
    /// # Cancel safety
    /// As [`Sandbox::remove`]: call it again.
    pub async fn remove(&self) -> Result<()> {
        let [store, transport] = &self.urls;
        let (store, transport) = (
            self.sandbox.remove(store).await,
            self.sandbox.remove(transport).await,
        );
        store.and(transport)
    }
}

/// The URL of a place that is in `sandbox`.
fn place(sandbox: &Sandbox, server: &str) -> String {
    let url = sandbox.url(server);
    match url.split(':').next() {
        Some("postgres" | "postgresql") => format!(
            "{url}&idle_in_transaction_timeout={}s",
            IDLE_IN_TRANSACTION.as_secs()
        ),
        _ => url,
    }
}

async fn thread<T, E, W>(toll: Toll, serve: impl Fn(Handled) -> W + Send + 'static) -> Result<Ended<T>, E>
where
    T: Send + 'static,
    E: From<io::Error> + Send + 'static,
    W: Future<Output = Result<T, E>> + 'static,
{
    let ended = on_thread(async move |crash| serve(Handled(How::Thread { toll, crash })).await);
    Ok(match ended.await? {
        Ended::Done(said) => Ended::Done(said?),
        Ended::TakenAway => Ended::TakenAway,
    })
}

async fn process<T: DeserializeOwned, E: From<io::Error>>(
    toll: Toll,
    mut command: Command,
    until: impl Future<Output = ()>,
) -> Result<Ended<T>, E> {
    let ended = in_process(&mut command, until, |line| line == HANDLED && toll.counts()).await?;
    Ok(match ended {
        Ended::Done(said) => Ended::Done(serde_json::from_str(&said).map_err(io::Error::other)?),
        Ended::TakenAway => Ended::TakenAway,
    })
}

/// Counts what all members handle.
#[derive(Clone, Default)]
struct Toll {
    /// How many messages are still to be handled until one takes its member away.
    left: Arc<AtomicU64>,
    took: Arc<AtomicBool>,
    watch: Option<Arc<dyn Fn(bool) + Send + Sync>>,
}

impl Toll {
    /// Counts one. It says whether the member that handled it is to go.
    fn counts(&self) -> bool {
        let left = self
            .left
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        let goes = left == Ok(1);
        self.took.fetch_or(goes, Relaxed);
        if let Some(watch) = &self.watch {
            watch(goes);
        }
        goes
    }
}

impl fmt::Debug for Toll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Toll")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// What a member of a [`Trial`] tells of each message that it has handled, for which it may be taken away.
#[derive(Clone, Debug)]
pub struct Handled(How);

#[derive(Clone, Debug)]
enum How {
    Thread { toll: Toll, crash: Crash },
    Process,
}

impl Handled {
    /// Tells it to the process that started this one, on standard output.
    #[must_use]
    pub const fn to_parent() -> Self {
        Self(How::Process)
    }

    /// Tells that a message is handled: when its effect is committed, and before it is acknowledged. A thread that is to be
    /// taken away goes no further than this, its handles in memory being severed first; a process is killed soon after.
    ///
    /// # Errors
    /// Of a process, when nobody listens any more: it should end.
    pub fn tell(&self, store: &AnyStore, transport: &AnyTransport) -> io::Result<()> {
        match &self.0 {
            How::Process => writeln!(io::stdout(), "{HANDLED}"),
            How::Thread { toll, crash } => {
                if toll.counts() {
                    sever(store, transport);
                    crash.now();
                }
                Ok(())
            }
        }
    }
}

#[cfg(feature = "memory")]
fn sever(store: &AnyStore, transport: &AnyTransport) {
    let handles: [Option<crate::Memory>; 2] = [store.typed(), transport.typed()];
    for memory in handles.into_iter().flatten() {
        memory.sever();
    }
}

#[cfg(not(feature = "memory"))]
const fn sever(_store: &AnyStore, _transport: &AnyTransport) {}

#[cfg(feature = "memory")]
#[cfg(test)]
mod tests;
