//! Where tasks run: work on one runtime, control on another, so that work cannot starve control.

use std::{future::Future, io, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    task::JoinHandle,
};

/// Where tasks run.
///
/// Handlers and loops that feed them run on `work`; renewals, heartbeats and time-outs on `control`, so that a
/// handler that never yields cannot starve them. In a simulation both are the one current-thread runtime.
#[derive(Clone, Debug)]
pub struct Spawner {
    work: Handle,
    control: Handle,
}

impl Spawner {
    /// Runs work and control on these runtimes.
    #[must_use]
    pub const fn new(work: Handle, control: Handle) -> Self {
        Self { work, control }
    }

    /// Runs both on the runtime of the caller: for simulations and tests.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn current() -> Self {
        Self::new(Handle::current(), Handle::current())
    }

    /// Spawns work.
    pub fn work<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.work.spawn(future)
    }

    /// The runtime of work, for task sets.
    #[must_use]
    pub const fn work_handle(&self) -> &Handle {
        &self.work
    }

    /// Spawns a control task.
    pub fn control<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.control.spawn(future)
    }
}

/// A runtime on a thread of its own for control tasks. Dropping it ends the runtime and its tasks.
#[derive(Debug)]
pub struct ControlRuntime {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl ControlRuntime {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the operating system refuses a thread or the runtime's resources.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("headless-control".to_owned())
            .spawn(move || {
                // Either a stop or the sender's end: both mean to end.
                let _ended = runtime.block_on(stopped);
                runtime.shutdown_background();
            })?;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The runtime.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for ControlRuntime {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the control thread panicked");
        }
    }
}
