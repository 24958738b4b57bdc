//! Looks at the node once a second, and says how much it does.
//!
//! * It decides nothing: [`rhumb_transport::resilience::mode`] does.
//! * It never does: wait for anybody. What it reads are counters.

use std::sync::Arc;
use std::time::Duration;

use rhumb_core::Mono;
use rhumb_storage::HotStore;
use rhumb_transport::resilience::mode::{ModeSettings, Modes, Signs};
use rhumb_transport::{LinkState, Transport};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::host::Hosts;
use crate::mesh::Mesh;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What it looks at.
pub(super) struct Watched {
    pub(super) mesh: Mesh,
    pub(super) hosts: Arc<Hosts>,
    pub(super) store: HotStore,
    pub(super) transport: Transport,
}

impl Watched {
    /// Questions that doors let in and turned away so far.
    fn admitted(&self) -> (u64, u64) {
        let doors = self.hosts.report().into_iter().filter_map(|report| report.admission);
        doors.fold((0, 0), |(admitted, refused), door| {
            (admitted + door.admitted, refused + door.full + door.too_late)
        })
    }

    fn signs(&self, before: (u64, u64), now: (u64, u64)) -> Signs {
        let (admitted, refused) = (now.0 - before.0, now.1 - before.1);
        let links = self.transport.links();
        let connected = links.iter().filter(|link| link.state == LinkState::Connected).count();
        Signs {
            asked: admitted + refused,
            shed: refused as f64 / (admitted + refused).max(1) as f64,
            store: self.store.stats().pressure as u8,
            peers: links.len() as u32,
            connected: connected as u32,
        }
    }
}

/// Follows the node for as long as it lives.
pub(super) fn keep(watched: Watched, settings: ModeSettings) -> JoinHandle<()> {
    tokio::spawn(async move {
        let (begun, mut modes) = (Instant::now(), Modes::new(settings));
        let (mut before, mut looks) = (watched.admitted(), interval(LOOK_EVERY));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let now = watched.admitted();
            let signs = watched.signs(before, now);
            before = now;
            if let Some(mode) = modes.look(Mono(begun.elapsed()), &signs) {
                let why = modes.why().map(|sign| sign.name());
                tracing::warn!(mode = mode.name(), why, "this node changes how much it does");
                watched.mesh.does(mode, why);
            }
        }
    })
}
