//! What a handler call is made from.

use std::sync::{Arc, Mutex};

use headless_abstractions::{Arrival, Failure, Hold, Message, Redelivery, Result};
use headless_core::WorkSlot;
use tokio_util::sync::CancellationToken;

use crate::{
    BatchContext, Context, Inbox,
    consumer::{Deadline, group::Group},
    context::{Attempt, CallContext},
    handler::{Call, Handler, HandlerKind},
};

impl Group {
    pub(crate) fn call_context(
        &self,
        messages: Vec<Message>,
        marks: Vec<(Arrival, Hold)>,
        attempt: Attempt,
        redelivery: Redelivery,
        failures: Vec<Failure>,
    ) -> CallContext {
        let clock = self.environment.clock.clone();
        CallContext {
            group: self.name.clone(),
            // What a handler publishes is caused by the message; of a batch, by its first.
            publisher: self.publisher.correlated_to(&messages[0]),
            messages,
            marks,
            attempt,
            redelivery,
            failures,
            form: self.form,
            inbox_store: self
                .store
                .as_ref()
                .filter(|_| self.form == Inbox::Transactional)
                .map(|store| store.store_id),
            state: self.state.clone(),
            cancelled: CancellationToken::new(),
            deadline: Arc::new(Deadline::after(clock, self.settings.timeout)),
            slot: WorkSlot::new(),
            refusal: Mutex::default(),
            planted: self.planted,
        }
    }
}

/// Decodes the message of a call and makes it, be its handler one of single events or of batches.
pub(crate) fn decode_call(handler: &Handler, cx: &Arc<CallContext>, group: &Group) -> Result<Call> {
    match &handler.kind {
        HandlerKind::Single(call) => call(&cx.messages[0], &group.codecs, Context::new(cx.clone())),
        HandlerKind::Batch { call, .. } => {
            let messages: Vec<_> = cx.messages.iter().collect();
            call(&messages, &group.codecs, BatchContext::new(cx.clone())).map_err(|(_, error)| error)
        }
    }
}
