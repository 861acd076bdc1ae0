//! A TCP proxy that breaks connections between a client and its server, on command.

mod answers;
mod commit;
mod connection;
mod fault;
mod pump;
mod statement;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    num::NonZero,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{net::TcpListener, runtime, sync::oneshot, task::JoinSet, time::sleep};

use self::{
    connection::Connection,
    fault::{CommitFault, Counted, Direction, Fault, Faults},
};
use crate::address::Address;

/// How long the proxy waits when it cannot accept, as without free file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);

/// A TCP proxy on a free port of 127.0.0.1 in front of a server, which forwards everything until it is told to do
/// worse. One fault is there at a time: each command ends the one before it, and [`pass`](Self::pass) the last.
///
/// A command holds for every byte that reaches the proxy after it has returned, and never waits. The proxy runs on a
/// thread of its own, in real time: it can be used from any runtime, also one whose time is paused or whose threads are
/// blocked. Dropping it closes every connection and waits for its thread.
///
/// ```no_run
/// use std::time::Duration;
///
/// use headless_harness::FaultProxy;
///
/// # fn main() -> std::io::Result<()> {
/// let url = "postgres://postgres@127.0.0.1:5432/test";
/// let proxy = FaultProxy::in_front_of(url)?;
/// let through = proxy.url_for(url)?; // connect the provider to this
/// proxy.latency(Duration::from_millis(50));
/// proxy.black_hole();
/// proxy.pass();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    faults: Arc<Faults>,
    /// Whether it reads what clients say, as those of PostgreSQL do.
    knows_commits: bool,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// A proxy in front of the server that this URL, or `host:port`, names. The server need not be there yet.
    ///
    /// # Errors
    /// When the URL names no host, or no port that is known; when there is no port or thread for the proxy.
    pub fn in_front_of(url: &str) -> io::Result<Self> {
        let upstream = parse(url)?;
        let knows_commits = ["postgres:", "postgresql:"]
            .iter()
            .any(|scheme| url.starts_with(scheme));
        let upstream = (upstream.host().to_owned(), upstream.port());
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let faults = Arc::new(Faults::default());
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::sync_channel(1);
        let served = faults.clone();
        let thread = thread::Builder::new()
            .name("fault-proxy".to_owned())
            .spawn(move || {
                // Made here, since a runtime must neither be run nor dropped within another one.
                let made = runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .and_then(|runtime| {
                        let _within = runtime.enter();
                        Ok((TcpListener::from_std(listener)?, runtime))
                    });
                let (listener, runtime) = match made {
                    Ok(made) => made,
                    Err(error) => return drop(tell.send(Err(error))),
                };
                drop(tell.send(Ok(())));
                runtime.block_on(async {
                    tokio::select! {
                        biased;
                        _ = stopped => {}
                        () = serve(listener, upstream, served, knows_commits) => {}
                    }
                });
            })?;
        told.recv().map_err(io::Error::other)??;
        Ok(Self {
            address,
            faults,
            knows_commits,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same URL through this proxy: with its place for host and port.
    ///
    /// # Errors
    /// When the URL names no host, or no port that is known.
    pub fn url_for(&self, url: &str) -> io::Result<String> {
        Ok(parse(url)?.at(self.address))
    }

    /// How many connections it holds open now, those included that are broken in silence.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.faults.connections()
    }

    /// Whether no fault is there: none was told, or one that happens once has happened.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.faults.now() == Fault::Pass
    }

    /// Forwards everything again, and what was held back.
    pub fn pass(&self) {
        self.faults.set(Fault::Pass);
    }

    /// Delivers everything this much later, in each direction, in order; a round trip takes twice as long.
    pub fn latency(&self, latency: Duration) {
        self.faults.set(Fault::Latency(latency));
    }

    /// Delivers at most this many bytes at a time, in each direction, and pauses after each time.
    pub fn slow_drip(&self, bytes: NonZero<usize>, pause: Duration) {
        self.faults.set(Fault::Drip { bytes, pause });
    }

    /// Resets all connections and every new one (TCP RST). Followed by [`pass`](Self::pass) it resets the connections
    /// there are, once.
    pub fn reset(&self) {
        self.faults.reset();
    }

    /// Closes all connections and every new one, with a good-bye (TCP FIN). Followed by [`pass`](Self::pass) it closes the
    /// connections there are, once.
    pub fn close_connections(&self) {
        self.faults.close();
    }

    /// Holds back what clients send, on connections old and new, while answers go on; nobody learns of it.
    pub fn stall_requests(&self) {
        self.faults.set(Fault::Stall(Direction::ToServer));
    }

    /// Holds back what the server sends, on connections old and new, while requests go on; nobody learns of it.
    pub fn stall_answers(&self) {
        self.faults.set(Fault::Stall(Direction::ToClient));
    }

    /// Closes the connection on which the next `COMMIT` of PostgreSQL arrives, which the server does not get: it rolls
    /// back, and the client does not know. Then passes again.
    ///
    /// A `COMMIT` is known as a query, alone or among other statements, and prepared and bound; on connections that are
    /// not encrypted, and in messages of up to 64 KiB.
    ///
    /// # Errors
    /// `Unsupported` where the URL of the server is not one of PostgreSQL.
    pub fn drop_commit(&self) -> io::Result<()> {
        self.at_commit(CommitFault::Drop)
    }

    /// Lets the next `COMMIT` of PostgreSQL go on, swallows its answer, and closes the connection once the server has
    /// given it: the transaction has ended, and the client does not know. Then passes again. What was asked before it is
    /// answered; of a pipeline, what stands before the `COMMIT` without a `Sync` between them is not. As to what is known,
    /// see [`drop_commit`](Self::drop_commit).
    ///
    /// # Errors
    /// As [`drop_commit`](Self::drop_commit).
    pub fn lose_commit_answer(&self) -> io::Result<()> {
        self.at_commit(CommitFault::LoseAnswer)
    }

    fn at_commit(&self, fault: CommitFault) -> io::Result<()> {
        if !self.knows_commits {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "COMMIT is known of PostgreSQL alone: give the proxy a URL that begins with postgres:",
            ));
        }
        self.faults.set(Fault::Commit(fault));
        Ok(())
    }

    /// Accepts, and swallows all that is sent, on connections old and new; nobody learns that another has closed. A
    /// connection that lost something by it is reset with the next command.
    pub fn black_hole(&self) {
        self.faults.set(Fault::BlackHole);
    }

    /// Stops forwarding on the connections there are, without closing them, as after a router forgot them: nobody
    /// learns that another has closed. New connections pass. One counts as there once something has come through it.
    pub fn half_open(&self) {
        self.faults.set(Fault::HalfOpen {
            before: self.faults.next_connection(),
        });
    }

    /// Lets exactly this many more bytes through, over all connections and both directions, and closes the connection
    /// on which the next one arrives; then passes again.
    pub fn cut_after(&self, bytes: u64) {
        self.faults.cut_after(Counted::All, bytes);
    }

    /// As [`cut_after`](Self::cut_after), but counts and cuts only what clients send: the server does not get the rest
    /// of a request.
    pub fn cut_requests_after(&self, bytes: u64) {
        self.faults.cut_after(Counted::Requests, bytes);
    }

    /// As [`cut_after`](Self::cut_after), but counts and cuts only what the server sends. With 0, the server has got a
    /// request, and its answer is lost.
    pub fn cut_answers_after(&self, bytes: u64) {
        self.faults.cut_after(Counted::Answers, bytes);
    }

    /// Closes all connections and the port, and returns once they are closed, as dropping it does.
    ///
    /// # Errors
    /// When its thread has panicked.
    pub fn close(mut self) -> io::Result<()> {
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        // Its end is the signal.
        self.stop = None;
        match self.thread.take().map(JoinHandle::join) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(io::Error::other("the fault proxy has panicked")),
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        // A panic of its thread has been printed by that thread.
        let _joined = self.join();
    }
}

fn parse(url: &str) -> io::Result<Address<'_>> {
    Address::parse(url).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))
}

/// Accepts until it is dropped, which drops the connections.
async fn serve(listener: TcpListener, upstream: (String, u16), faults: Arc<Faults>, knows_commits: bool) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let connection = Connection::new(&faults, knows_commits);
                    connections.spawn(connection.run(client, upstream.clone()));
                }
                // Either this client is gone already, or the machine has no room for it yet.
                Err(_) => sleep(ACCEPT_AGAIN).await,
            },
        }
    }
}
