//! A gate that stops an arbiter on purpose, so that a backlog is complete before its first message runs.

use parking_lot::{Condvar, Mutex};

#[derive(Default)]
struct State {
    waits: bool,
    open: bool,
}

/// Closed until opened.
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    /// A closed gate at which nobody waits.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: Mutex::new(State { waits: false, open: false }), changed: Condvar::new() }
    }

    /// Blocks the thread until the gate is opened, and closes it behind itself.
    pub fn pass(&self) {
        let mut state = self.state.lock();
        state.waits = true;
        self.changed.notify_all();
        while !state.open {
            self.changed.wait(&mut state);
        }
        *state = State::default();
    }

    /// Blocks until somebody waits at the gate.
    pub fn await_one(&self) {
        let mut state = self.state.lock();
        while !state.waits {
            self.changed.wait(&mut state);
        }
    }

    /// Lets the one who waits pass.
    pub fn open(&self) {
        self.state.lock().open = true;
        self.changed.notify_all();
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}
