//! Two threads with a tokio runtime each, for systems whose actors are tasks: what an arbiter is to actix.

use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

struct Thread {
    handle: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Two threads.
pub struct Threads([Thread; 2]);

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn two() -> anyhow::Result<Self> {
        Ok(Self([Thread::start()?, Thread::start()?]))
    }

    /// The first (0) or the second (1).
    #[must_use]
    pub fn at(&self, number: usize) -> &Handle {
        &self.0[number].handle
    }

    /// Runs a future on the first of them, and waits for it.
    ///
    /// # Errors
    /// It panicked.
    pub fn on_first<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (done, wait) = std::sync::mpsc::channel();
        self.at(0).spawn(async move { done.send(future.await).ok() });
        Ok(wait.recv()?)
    }
}

impl Thread {
    fn start() -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, (end, ended)) = (runtime.handle().clone(), oneshot::channel::<()>());
        let thread = std::thread::Builder::new().name("bench-actors".into()).spawn(move || {
            runtime.block_on(ended).ok();
        })?;
        Ok(Self { handle, end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
