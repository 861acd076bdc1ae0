//! This process as a node of its store.

use std::{sync::Arc, time::Duration};

use headless_abstractions::{Error, ErrorKind, Result};
use headless_core::{Environment, Membership};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{Plan, consumer::Group};

/// Registers this process as a node, where it is to be one and the store watches over its nodes.
pub(super) async fn join(plan: &Plan) -> Result<Option<Membership>> {
    let store = plan.store.as_ref().and_then(|store| store.membership.clone());
    match (store, &plan.service) {
        (Some(store), Some(service)) => {
            let (environment, service, config) = (plan.environment.clone(), service.clone(), plan.membership);
            // Where heartbeats run: the connection that is made for it must not depend on the application's threads.
            let joining = async move { Membership::join(&environment, store, &service, config).await };
            let joining = AbortOnDropHandle::new(plan.environment.spawner.control(joining));
            let joined = joining.await.map_err(|ended| {
                Error::new(ErrorKind::Internal, "registering this node ended badly").with_source(ended)
            })?;
            joined.map(Some)
        }
        _ => Ok(None),
    }
}

/// Pauses these groups whenever the life of this node is over, until it goes on or another begins.
pub(super) async fn follow_life(environment: Environment, groups: Vec<Arc<Group>>, stop: CancellationToken) {
    let mut listener = environment.life.listen();
    let mut was_over = false;
    loop {
        let now = environment.clock.monotonic();
        let is_over = environment.life.is_over(now);
        // A heartbeat that is accepted changes nothing else.
        if is_over != was_over {
            was_over = is_over;
            for group in &groups {
                group.silence(is_over);
            }
        }
        let ends = async {
            match environment.life.until() {
                _ if is_over => std::future::pending().await,
                Duration::MAX => std::future::pending().await,
                until => tokio::time::sleep(until.saturating_sub(now)).await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = listener.woken() => {}
            () = ends => {}
        }
    }
}
