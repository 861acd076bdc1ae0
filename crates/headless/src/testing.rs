//! What tests and trials of an application need: members that are taken away as a crash would, and a count of what became
//! of every message.
//!
//! A place of their own on shared servers is [`Sandbox`](crate::Sandbox).

mod member;
mod tally;

pub use member::{Crash, Ended, in_process, on_thread};
pub use tally::{Tally, Written};
