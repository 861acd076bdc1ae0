//! One connection through the proxy.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use tokio::{io::AsyncReadExt, net::TcpStream, sync::watch};

use super::{
    answers::Answers,
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
    /// What its ends have said, where that is read.
    talk: Option<Mutex<Talk>>,
}

/// What the ends of a connection have said to each other.
#[derive(Debug)]
struct Talk {
    requests: Requests,
    answers: Answers,
    /// How often the server is ready before the answer that is for nobody.
    unheard_after: Option<u64>,
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
            talk: knows_commits.then(|| {
                Mutex::new(Talk {
                    requests: Requests::new(),
                    answers: Answers::default(),
                    unheard_after: None,
                })
            }),
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

    /// What a client has said, in the parts in which it is to be passed on: a COMMIT is one of its own.
    pub(super) fn said(&self, bytes: Bytes) -> Vec<Said> {
        match self.talk() {
            Some(mut talk) => {
                let whole = matches!(self.faults.now(), Fault::Commit(_));
                talk.requests.hear(bytes, whole)
            }
            None => vec![Said::other(bytes)],
        }
    }

    /// What of this answer may be heard; and whether the server has given one that is for nobody, after which nothing is.
    pub(super) fn answered(&self, mut bytes: Bytes) -> (Vec<Bytes>, bool) {
        let Some(mut talk) = self.talk() else {
            return (vec![bytes], false);
        };
        let mut heard = Vec::new();
        while !bytes.is_empty() {
            if talk.requests.is_opaque() {
                heard.push(bytes);
                break;
            }
            let is_unheard = talk
                .unheard_after
                .is_some_and(|after| talk.answers.ready() >= after);
            let asked_to_encrypt = talk.requests.asked_to_encrypt();
            let part = talk.answers.hear(&mut bytes, asked_to_encrypt);
            if !is_unheard {
                heard.push(part);
            } else if talk
                .unheard_after
                .is_some_and(|after| talk.answers.ready() > after)
            {
                return (heard, true);
            }
        }
        (heard, false)
    }

    /// Whether a COMMIT may go on to the server, which is ready so often before it has answered that.
    pub(super) fn lets_commit(&self, ready_before: u64) -> bool {
        match self.faults.commit() {
            None => true,
            Some(CommitFault::Drop) => false,
            Some(CommitFault::LoseAnswer) => {
                if let Some(mut talk) = self.talk() {
                    talk.unheard_after = Some(ready_before);
                }
                true
            }
        }
    }

    fn talk(&self) -> Option<MutexGuard<'_, Talk>> {
        let talk = self.talk.as_ref()?;
        Some(talk.lock().unwrap_or_else(PoisonError::into_inner))
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
