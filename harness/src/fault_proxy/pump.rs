//! One direction of a connection: what arrives is queued with its time, and delivered as the fault of now has it.

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{ReadHalf, WriteHalf},
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    commit::Said,
    connection::{Connection, End, changed},
    fault::{Direction, Fault, Share},
};

/// The most bytes of a piece.
pub(super) const PIECE: usize = 16 * 1024;
/// The most pieces that wait in a direction; then its sender waits.
const PIECES: usize = 64;

/// What arrived.
#[derive(Debug)]
enum Piece {
    Bytes(Bytes),
    /// Its sender has closed.
    End,
    /// Its sender is gone without a good-bye.
    Gone,
}

/// Forwards until the sender has closed and the receiver knows.
pub(super) async fn pump(
    connection: &Connection,
    direction: Direction,
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
) -> Result<(), End> {
    let (arrive, arrived) = mpsc::channel(PIECES);
    let taking_in = async {
        take_in(connection, from, arrive).await;
        // The last piece is on its way.
        std::future::pending().await
    };
    tokio::select! {
        biased;
        delivered = deliver(connection, direction, arrived, to) => delivered,
        never = taking_in => never,
    }
}

async fn take_in(connection: &Connection, mut from: ReadHalf<'_>, arrive: mpsc::Sender<(Instant, Piece)>) {
    let mut faults = connection.watch();
    let mut buffer = BytesMut::new();
    loop {
        // What is not forwarded stays with its sender's system, whose sender fills up as on a dead line.
        if matches!(connection.fault(&mut faults), Fault::HalfOpen { .. }) {
            changed(&mut faults).await;
            continue;
        }
        buffer.reserve(PIECE);
        let read = tokio::select! {
            biased;
            () = changed(&mut faults) => continue,
            read = from.read_buf(&mut buffer) => read,
        };
        let piece = match read {
            Ok(0) => Piece::End,
            Ok(_) => Piece::Bytes(buffer.split().freeze()),
            Err(_) => Piece::Gone,
        };
        let last = !matches!(piece, Piece::Bytes(_));
        if arrive.send((now(), piece)).await.is_err() || last {
            return;
        }
    }
}

async fn deliver(
    connection: &Connection,
    direction: Direction,
    mut arrived: mpsc::Receiver<(Instant, Piece)>,
    mut to: WriteHalf<'_>,
) -> Result<(), End> {
    while let Some((at, piece)) = arrived.recv().await {
        let Piece::Bytes(bytes) = piece else {
            return pass_on(connection, direction, (at, piece), &mut to).await;
        };
        if direction == Direction::ToClient {
            let (heard, is_over) = connection.answered(bytes);
            for bytes in heard {
                pass_on(connection, direction, (at, Piece::Bytes(bytes)), &mut to).await?;
            }
            if is_over {
                return Err(End::Closed);
            }
            continue;
        }
        for Said { bytes, commits } in connection.said(bytes) {
            if commits.is_some_and(|ready_before| !connection.lets_commit(ready_before)) {
                return Err(End::Closed);
            }
            pass_on(connection, direction, (at, Piece::Bytes(bytes)), &mut to).await?;
        }
    }
    Ok(())
}

/// Delivers one piece, as the fault of now has it.
async fn pass_on(
    connection: &Connection,
    direction: Direction,
    (at, mut piece): (Instant, Piece),
    to: &mut WriteHalf<'_>,
) -> Result<(), End> {
    let mut faults = connection.watch();
    loop {
        let now = match connection.fault(&mut faults) {
            Fault::HalfOpen { .. } | Fault::Reset | Fault::Close => {
                changed(&mut faults).await;
                continue;
            }
            Fault::Stall(stalled) if stalled == direction => {
                changed(&mut faults).await;
                continue;
            }
            Fault::BlackHole => {
                connection.lose();
                match piece {
                    Piece::Bytes(_) => return Ok(()),
                    // Nobody learns of it while the hole is there.
                    Piece::End | Piece::Gone => changed(&mut faults).await,
                }
                continue;
            }
            Fault::Latency(latency) => {
                tokio::select! {
                    biased;
                    () = changed(&mut faults) => continue,
                    () = sleep(latency.saturating_sub(at.elapsed())) => {}
                }
                usize::MAX
            }
            Fault::Drip { bytes, .. } => bytes.get(),
            Fault::Pass | Fault::Cut(_) | Fault::Stall(_) | Fault::Commit(_) => usize::MAX,
        };
        match &mut piece {
            Piece::Gone => return Err(End::Reset),
            Piece::End => return to.shutdown().await.map_err(|_| End::Reset),
            Piece::Bytes(bytes) => {
                let part = bytes.split_to(now.min(bytes.len()));
                let share = connection.pass(direction, part.len());
                let part = match share {
                    Share::All => &part[..],
                    Share::First(few) => &part[..few],
                };
                to.write_all(part).await.map_err(|_| End::Reset)?;
                if matches!(share, Share::First(_)) {
                    return Err(End::Closed);
                }
                let fault = *faults.borrow();
                if let Fault::Drip { pause, .. } = fault {
                    tokio::select! {
                        biased;
                        () = changed(&mut faults) => {}
                        () = sleep(pause) => {}
                    }
                }
                if bytes.is_empty() {
                    return Ok(());
                }
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a proxy is a part of the network, which runs in the machine's time"
)]
fn now() -> Instant {
    Instant::now()
}
