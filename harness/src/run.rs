//! Running one case: its runtime, its namespace, its bound.

use std::{io, time::Duration};

use crate::{
    case::{Case, CaseError, Verdict},
    cx::Cx,
    fixture::{Fixture, Namespace, Unavailable},
    wait::within,
};

/// The longest that one case may take, in its own time. A case that hangs has failed.
const CASE_BOUND: Duration = Duration::from_secs(180);
/// The longest that a namespace may take to go.
const DROP_BOUND: Duration = Duration::from_secs(30);

/// What came of running a case.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It ran to its end.
    Judged(Verdict),
    /// The service is not there.
    Absent(String),
    /// A promise was broken.
    Failed(String),
}

/// What a run of a case saw.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) outcome: Outcome,
    /// The server's version, where it answered.
    pub(crate) version: Option<String>,
}

/// Runs a case in a runtime and a namespace of its own.
///
/// `wrap` may put something around the fixture, such as a mutation.
pub(crate) fn run_case<F: Fixture, G: Fixture>(case: &Case<G>, wrap: impl FnOnce(F) -> G) -> Run {
    let runtime = match runtime(F::VIRTUAL_TIME) {
        Ok(runtime) => runtime,
        Err(error) => {
            return Run {
                outcome: Outcome::Failed(format!("no runtime: {error}")),
                version: None,
            };
        }
    };
    let run = runtime.block_on(async {
        let opened = if case.restarts {
            F::open_restartable(Namespace::unique()).await
        } else {
            F::open(Namespace::unique()).await
        };
        match opened {
            Err(Unavailable::Absent(why)) => Run {
                outcome: Outcome::Absent(why),
                version: None,
            },
            Err(Unavailable::Broken(why)) => Run {
                outcome: Outcome::Failed(why),
                version: None,
            },
            Ok(fixture) => {
                let version = Some(fixture.version());
                let outcome = run_in(case, wrap(fixture)).await;
                Run { outcome, version }
            }
        }
    });
    runtime.shutdown_background();
    run
}

async fn run_in<F: Fixture>(case: &Case<F>, fixture: F) -> Outcome {
    let cx = Cx::new(fixture);
    let judged = match within(CASE_BOUND, "the case", case.judge(&cx)).await {
        Ok(judged) => judged,
        Err(hung) => Err(hung),
    };
    let dropped = within(
        DROP_BOUND,
        "dropping the namespace",
        cx.into_fixture().drop_namespace(),
    )
    .await;
    match (judged, dropped) {
        (Err(CaseError::Failed(what) | CaseError::Unproved(what)), _) => Outcome::Failed(what),
        (Ok(_), Err(hung)) => Outcome::Failed(hung.to_string()),
        (Ok(_), Ok(Err(error))) => Outcome::Failed(format!("the namespace was not dropped: {error}")),
        (Ok(verdict), Ok(Ok(()))) => Outcome::Judged(verdict),
    }
}

/// One thread in paused time where the provider allows it: a case then takes no longer than its work. Otherwise as
/// a real process runs.
fn runtime(virtual_time: bool) -> io::Result<tokio::runtime::Runtime> {
    if virtual_time {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
    } else {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
    }
}
