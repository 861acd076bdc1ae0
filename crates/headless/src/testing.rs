//! What tests and trials of an application need: members that are taken away as a crash would, and a count of what became
//! of every message.
//!
//! A [`Trial`] runs members on servers, takes one away and replaces it; [`Tally`] counts from the rows that the application
//! wrote; a [`Report`] says both. A place of their own on shared servers is [`Sandbox`](crate::Sandbox).

mod member;
mod report;
mod tally;
mod trial;

pub use member::{Crash, Ended, in_process, on_thread};
pub use report::{Figures, Report};
pub use tally::{Tally, Written};
pub use trial::{Handled, Trial};
