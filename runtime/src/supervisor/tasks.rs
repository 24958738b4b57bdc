//! The tasks of a node that must run for as long as it does.
//!
//! * It decides: that a task which ends or panics by itself ends the node.
//! * It never does: start one again. Half-alive is the worst state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::{AbortHandle, JoinHandle};

use super::halt::Halt;

/// The tasks of one node. They end with it.
pub(super) struct Tasks {
    halt: Halt,
    over: Arc<AtomicBool>,
    tasks: Vec<AbortHandle>,
}

impl Tasks {
    /// None yet; one that ends asks for the stop.
    pub(super) fn new(halt: Halt) -> Self {
        Self { halt, over: Arc::default(), tasks: Vec::new() }
    }

    /// Watches a task.
    pub(super) fn keep(&mut self, name: &'static str, task: JoinHandle<()>) {
        self.tasks.push(task.abort_handle());
        let (halt, over) = (self.halt.clone(), Arc::clone(&self.over));
        tokio::spawn(async move {
            let ended = task.await;
            if over.load(Ordering::Acquire) {
                return;
            }
            halt.now(match ended {
                Ok(()) => format!("the task that {name} has ended"),
                Err(error) => format!("the task that {name} has died: {error}"),
            });
        });
    }

    /// Ends them all.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_or_ends_halts_the_node_and_says_which() {
        for (task, told) in [
            (tokio::spawn(async { panic!("out of luck") }), "the task that guards the clock has died: "),
            (tokio::spawn(async {}), "the task that guards the clock has ended"),
        ] {
            let halt = Halt::default();
            let mut tasks = Tasks::new(halt.clone());
            tasks.keep("guards the clock", task);
            let reason = halt.asked().await;
            assert!(reason.starts_with(told), "{reason}");
        }
    }

    #[tokio::test]
    async fn tasks_that_end_with_their_node_halt_nothing() {
        let halt = Halt::default();
        let mut tasks = Tasks::new(halt.clone());
        tasks.keep("sleeps", tokio::spawn(std::future::pending()));
        let other = tokio::spawn(std::future::pending::<()>());
        tasks.keep("sleeps too", other);
        tasks.end();
        halt.now("asked for");
        assert_eq!(halt.asked().await, "asked for");
    }
}
