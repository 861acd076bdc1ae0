//! Listening to other processes, on a connection of its own.

use std::{sync::Arc, time::Duration};

use headless_abstractions::{Error, ErrorKind, Result};
use sqlx::{
    Executor,
    postgres::{PgListener, PgPoolOptions},
};
use uuid::Uuid;

use super::{Shared, Signal};
use crate::error::{fault, no_connection};

/// How long connecting may take.
const CONNECTING: Duration = Duration::from_secs(5);

/// After this long without a notification the server is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(5);

/// How long it may take to answer. Together with [`SILENCE`] this is when a socket is noticed that is open on one side.
const ANSWER: Duration = Duration::from_secs(5);

/// The first pause before connecting again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Listens until the handle is closed, and connects again whenever the connection is lost.
pub(super) async fn run(shared: Arc<Shared>) {
    let work = async {
        let mut pause = FIRST_PAUSE;
        loop {
            match connect(&shared).await {
                Ok(listener) => {
                    pause = FIRST_PAUSE;
                    // What was sent while nobody listened is lost: everything is polled in full.
                    for signal in Signal::ALL {
                        shared.give(signal);
                    }
                    let error = listen(&shared, listener).await;
                    tracing::debug!(%error, "the listening connection was lost");
                }
                Err(error) => tracing::debug!(%error, "the listening connection could not be made"),
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    };
    tokio::select! {
        biased;
        () = shared.closed.cancelled() => {}
        () = work => {}
    }
}

async fn connect(shared: &Shared) -> Result<PgListener> {
    // The client listens on connections of a pool only: this one has no other.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .acquire_timeout(CONNECTING)
        .connect_lazy_with(shared.options.clone());
    let connecting = async {
        let mut listener = PgListener::connect_with(&pool).await?;
        // Listening again is ours, since everyone is woken after it.
        listener.eager_reconnect(false);
        listener.listen(&shared.channel).await?;
        Ok(listener)
    };
    match tokio::time::timeout(CONNECTING, connecting).await {
        Ok(listener) => listener.map_err(no_connection),
        Err(_elapsed) => Err(silent("connecting took too long")),
    }
}

/// Hands on what is heard, until the connection is lost.
async fn listen(shared: &Shared, mut listener: PgListener) -> Error {
    loop {
        match tokio::time::timeout(SILENCE, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => hear(shared, notification.payload()),
            Ok(Ok(None)) => return silent("the server closed it"),
            Ok(Err(error)) => return fault(error),
            Err(_silence) => {
                let ping = listener.execute(sqlx::raw_sql(shared.statements.ping.get()));
                match tokio::time::timeout(ANSWER, ping).await {
                    Ok(Ok(_alive)) => {}
                    Ok(Err(error)) => return fault(error),
                    Err(_elapsed) => return silent("the server does not answer"),
                }
            }
        }
    }
}

/// A word, and who sent it unless that was SQL.
fn hear(shared: &Shared, payload: &str) {
    let (word, from) = payload.split_once(' ').unwrap_or((payload, ""));
    if from == shared.own {
        return;
    }
    for signal in Signal::ALL {
        if signal.word() == word {
            shared.give(signal);
        }
    }
}

fn silent(why: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, why)
}

/// A random time between half of this and all of it, so that not everybody comes back at once.
fn jittered(pause: Duration) -> Duration {
    let chance = Uuid::new_v4().as_bytes()[0];
    pause / 2 + pause / 2 * u32::from(chance) / 255
}
