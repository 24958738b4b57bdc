//! The thread on which a transport lives: its socket, its connections, the readers and writers of its
//! lanes. One thread with an event loop of its own, because small packets cost several times as much
//! where they are handed from worker to worker (quinn #1433), and because what else the process does
//! then never delays an acknowledgement.
//!
//! * It decides: nothing.
//! * It never does: run a handler. What is delivered goes to the mailbox of an arbiter or to the
//!   process's own runtime.

use std::io;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::sync::oneshot;

/// A handle on a link thread. The thread ends when the last one is dropped, and with it whatever runs
/// there.
#[derive(Debug, Clone)]
pub(crate) struct LinkThread {
    handle: Handle,
    ends: Arc<oneshot::Sender<()>>,
}

/// The thread of all clients of this process, while there is one.
static OF_CLIENTS: Mutex<Option<(Handle, Weak<oneshot::Sender<()>>)>> = Mutex::new(None);

impl LinkThread {
    /// Starts a thread.
    ///
    /// # Errors
    /// The operating system gives no thread or no event queue.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (ends, ended) = oneshot::channel::<()>();
        std::thread::Builder::new().name("rhumb-link".to_owned()).spawn(move || {
            // An error is what is waited for: the last handle has gone.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { handle, ends: Arc::new(ends) })
    }

    /// Where a client lives: in a program whose runtime is one thread, there, so that no message is handed
    /// from thread to thread; else on a thread that all such clients of this process share.
    ///
    /// # Errors
    /// As for [`LinkThread::start`].
    pub(crate) fn of_clients() -> io::Result<Self> {
        if let Ok(here) = Handle::try_current()
            && here.runtime_flavor() == RuntimeFlavor::CurrentThread
        {
            let (ends, _) = oneshot::channel();
            return Ok(Self { handle: here, ends: Arc::new(ends) });
        }
        let mut shared = OF_CLIENTS.lock();
        if let Some((handle, ends)) = &*shared
            && let Some(ends) = ends.upgrade()
        {
            return Ok(Self { handle: handle.clone(), ends });
        }
        let started = Self::start()?;
        *shared = Some((started.handle.clone(), Arc::downgrade(&started.ends)));
        Ok(started)
    }

    /// Where it is.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}
