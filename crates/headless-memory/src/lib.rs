//! The in-memory provider of headless: a transport, every messaging store and a unit of work.
//!
//! It is the reference for the driver traits: bounded, with leases, transactions and the failure semantics of a real
//! server, and it hands out copies, never live references. One [`Memory`] is a server; [`Memory::connect`] gives a
//! handle for each member, and [`Memory::sever`] cuts one off as a crash would.
//!
//! Nothing survives the process. Leases run on the host's clock (or the one that [`MemoryConfig`] is given), so a step of it may
//! shorten or lengthen them.
//!
//! ```
//! use headless_memory::Memory;
//!
//! let memory = Memory::new();
//! let member = memory.connect();
//! member.sever();
//! # let _ = memory;
//! ```

mod broker;
mod clock;
mod config;
mod link;
mod memory;
mod store;
mod subscriber;
mod transport;

pub use config::MemoryConfig;
pub use memory::Memory;
pub use store::MemoryTx;
