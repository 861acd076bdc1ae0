//! What every domain of headless needs once.
//!
//! The unit of work, events and codecs, retry, background tasks, shutdown, wake-ups, the state map, names of metrics and spans, and
//! the [`Environment`] through which time, chance, threads and identity are injected. It knows the driver traits of
//! `headless-abstractions` and no provider.
//!
//! Applications depend on the `headless` crate, which re-exports what they need from here.

mod background;
mod backoff;
mod clock;
mod codec;
mod control;
mod crash_point;
mod environment;
mod event;
mod handler_error;
mod life;
mod measure;
mod membership;
pub mod metric;
mod random;
mod raw;
mod retry;
mod spawner;
mod state;
pub mod trace;
mod unit_of_work;
mod wakeups;
mod work_slot;

pub use background::{Background, Next, TaskSpec, TaskStatus, panic_message};
pub use backoff::Backoff;
pub use clock::SystemClock;
pub use codec::{Codec, Codecs, Json, MessagePack, Read, decode};
pub use control::{Changed, Control};
pub use crash_point::CrashPoint;
pub use environment::Environment;
pub use event::Event;
pub use handler_error::{HandlerError, HandlerResult, Verdict};
pub use life::{Asked, Asking, Life};
pub use measure::store_call;
pub use membership::{Membership, MembershipConfig, Nodes};
pub use random::{SeededRandom, SystemRandom};
pub use raw::{Raw, RawBytes};
pub use retry::Retry;
pub use spawner::{ControlRuntime, Spawner};
pub use state::State;
pub use unit_of_work::{UnitOfWork, Wake};
pub use wakeups::{Listener, Signal, Wakeups};
pub use work_slot::{Reservation, WorkProgress, WorkSlot};
