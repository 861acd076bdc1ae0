//! One connection through the proxy.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use tokio::{io::AsyncReadExt, net::TcpStream, sync::watch};

use super::{
    commit::{Requests, Said},
    fault::{CommitFault, Direction, Fault, Faults, Share},
    pump::{PIECE, pump},
};

/// A connection that the proxy holds open, for both of its directions.
#[derive(Debug)]
pub(super) struct Connection {
    number: u64,
    faults: Arc<Faults>,
    /// Whether bytes of it are lost, so that it cannot go on.
    lossy: AtomicBool,
    /// What its client has said, where that is read.
    requests: Option<Mutex<Requests>>,
    /// Whether what the server says now is for nobody.
    unanswered: AtomicBool,
}

/// Why a connection ends at once, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Told so, or as one of its ends was.
    Reset,
    /// With a good-bye: it was told so, or the bytes before a cut have passed.
    Closed,
}

impl Connection {
    pub(super) fn new(faults: &Arc<Faults>, knows_commits: bool) -> Self {
        Self {
            number: faults.accept(),
            faults: faults.clone(),
            lossy: AtomicBool::new(false),
            requests: knows_commits.then(|| Mutex::new(Requests::new())),
            unanswered: AtomicBool::new(false),
        }
    }

    /// Forwards until both ends have closed, or something breaks it.
    pub(super) async fn run(self, mut client: TcpStream, upstream: (String, u16)) {
        let mut server = None;
        let ended = tokio::select! {
            biased;
            end = self.broken() => Err(end),
            ended = self.forward(&mut client, &mut server, &upstream) => ended,
        };
        if ended == Err(End::Reset) {
            for stream in [Some(client), server].into_iter().flatten() {
                // Without it the other end reads an orderly end; there is nobody to tell.
                let _reset = stream.set_zero_linger();
            }
        }
    }

    async fn forward(
        &self,
        client: &mut TcpStream,
        server: &mut Option<TcpStream>,
        upstream: &(String, u16),
    ) -> Result<(), End> {
        self.swallow_all(client).await;
        let connected = TcpStream::connect(upstream).await.map_err(|_| End::Reset)?;
        let server = server.insert(connected);
        for stream in [&*client, &*server] {
            // Each piece on its own: what merges pieces would blur what a fault does to them.
            stream.set_nodelay(true).map_err(|_| End::Reset)?;
        }
        let (client_out, client_in) = client.split();
        let (server_out, server_in) = server.split();
        tokio::try_join!(
            pump(self, Direction::ToServer, client_out, server_in),
            pump(self, Direction::ToClient, server_out, client_in),
        )?;
        Ok(())
    }

    /// Is all that becomes of a connection into a black hole, which has no other side.
    async fn swallow_all(&self, client: &mut TcpStream) {
        let mut faults = self.watch();
        let mut swallowed = vec![0; PIECE];
        let mut open = true;
        while self.fault(&mut faults) == Fault::BlackHole {
            self.lose();
            tokio::select! {
                biased;
                () = changed(&mut faults) => {}
                read = client.read(&mut swallowed), if open => open = read.is_ok_and(|bytes| bytes > 0),
            }
        }
    }

    /// Waits until the connection must not go on.
    async fn broken(&self) -> End {
        let mut faults = self.watch();
        loop {
            match self.fault(&mut faults) {
                Fault::Reset => return End::Reset,
                _ if self.faults.has_reset(self.number) => return End::Reset,
                Fault::Close => return End::Closed,
                _ if self.faults.has_closed(self.number) => return End::Closed,
                Fault::BlackHole => {}
                _ if self.lossy.load(Ordering::SeqCst) => return End::Reset,
                _ => {}
            }
            changed(&mut faults).await;
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Fault> {
        self.faults.watch()
    }

    /// What happens to this connection now; the next [`changed`] waits for something else.
    pub(super) fn fault(&self, faults: &mut watch::Receiver<Fault>) -> Fault {
        match *faults.borrow_and_update() {
            Fault::HalfOpen { before } if self.number >= before => Fault::Pass,
            fault => fault,
        }
    }

    pub(super) fn pass(&self, direction: Direction, bytes: usize) -> Share {
        self.faults.pass(direction, bytes)
    }

    /// What arrived, in the parts in which it is to be passed on: a COMMIT is one of its own.
    pub(super) fn parts(&self, direction: Direction, bytes: Bytes) -> Vec<Said> {
        match &self.requests {
            Some(requests) if direction == Direction::ToServer => {
                let whole = matches!(self.faults.now(), Fault::Commit(_));
                let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
                requests.hear(bytes, whole)
            }
            _ => vec![Said {
                bytes,
                commits: false,
            }],
        }
    }

    /// Whether a COMMIT may go on to the server.
    pub(super) fn lets_commit(&self) -> bool {
        match self.faults.commit() {
            None => true,
            Some(CommitFault::Drop) => false,
            Some(CommitFault::LoseAnswer) => {
                self.unanswered.store(true, Ordering::SeqCst);
                true
            }
        }
    }

    /// Whether what the server says now is for nobody.
    pub(super) fn is_unanswered(&self) -> bool {
        self.unanswered.load(Ordering::SeqCst)
    }

    pub(super) fn lose(&self) {
        self.lossy.store(true, Ordering::SeqCst);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.faults.ended();
    }
}

/// Waits for another fault; for ever when there will be none, since the proxy is going.
pub(super) async fn changed(faults: &mut watch::Receiver<Fault>) {
    if faults.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
