//! Where `ClockKeeper` meets the world: it looks at the other nodes' wall clocks, at sources of time and at the kernel, and what comes of it
//! is told in the log, the audit log, the status and the metrics.
//!
//! * It decides: whom to ask, and how often. What that means is the keeper's.
//! * It never does: move a clock, or wait for a node that is not connected: what cannot be compared counts as near.

mod drill;
mod reset;
mod told;

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::clock::keeper::EPOCH_KEY;
use rhumb_actors::clock::{ClockKeeper, ClockSettings, Doubt, EpochRow, Freeze, Kernel, Sample, Standing};
use rhumb_core::{DataClass, Delivery, HybridTime, NodeId};
use rhumb_storage::{Engine, Family, Store};
use rhumb_transport::{LinkState, Transport};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::audit::Audited;
use crate::clock::{NodeClock, chrony, discipline, ntp};
use crate::mesh::Mesh;
use crate::mesh::clock::AskWall;
use crate::mesh::registry::{Call, Registry, ServedTwice};
use crate::settings::{Settings, TimeSource};

pub(super) use drill::serve as serve_drills;
pub(super) use reset::serve as serve_resets;
pub(super) use told::{metrics, status};

/// How often clocks are compared.
const EVERY: Duration = Duration::from_secs(1);
/// How long another node may take to answer. What took longer says nothing any more.
const WITHIN: Duration = Duration::from_secs(1);
/// How long chrony, on the same machine, may take.
const CHRONY_WITHIN: Duration = Duration::from_millis(200);
/// So many answers of a source are asked for so briskly, and all others so calmly: 64 s is what public servers bear.
const AT_FIRST: u32 = 4;
const BRISKLY: Duration = Duration::from_secs(4);
const CALMLY: Duration = Duration::from_secs(64);
/// A shorter sleep of the machine is no sleep, but the two readings of its clocks.
const ASLEEP: Duration = Duration::from_millis(1);

/// Has the clock of a starting node kept: `ceiling` is the highest of its earlier lives.
///
/// # Errors
/// The stored epoch cannot be read.
pub(super) fn begin<E: Engine>(
    clock: &NodeClock,
    store: &Store<E>,
    settings: &Settings,
    ceiling: HybridTime,
) -> anyhow::Result<()> {
    let row = store.get(Family::Meta, EPOCH_KEY)?;
    let row = row.map(|bytes| EpochRow::read(&bytes)).transpose();
    let row = row.map_err(|error| anyhow::anyhow!("the stored epoch of the clock: {error}"))?;
    let others = settings.founding.nodes().len().saturating_sub(1);
    let keeper = ClockSettings {
        max_offset: settings.max_offset,
        peers: others,
        sources: settings.time.sources.iter().map(|source| source.as_str().to_owned()).collect(),
        ..ClockSettings::default()
    };
    clock.kept_by(ClockKeeper::new(keeper, row, ceiling));
    Ok(())
}

/// Answers other nodes with this one's wall clock.
pub(super) fn serve(registry: &mut Registry, clock: &NodeClock) -> Result<(), ServedTwice> {
    let clock = clock.clone();
    registry.serve(move |_: Call<AskWall>| {
        let shown = clock.wall_micros();
        async move { Ok((shown, DataClass::control())) }
    })
}

/// What watches the clock of a running node. Cloneable; all clones are one.
#[derive(Clone)]
pub(super) struct Watch {
    pub(super) me: NodeId,
    pub(super) clock: NodeClock,
    pub(super) mesh: Mesh,
    pub(super) audited: Audited,
    pub(super) chrony: SocketAddr,
}

impl Watch {
    /// Looks at all clocks for as long as the node lives.
    pub(super) fn keep(self, transport: Transport) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut every = tokio::time::interval(EVERY);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut slept = discipline::slept();
            loop {
                every.tick().await;
                let by_now = discipline::slept();
                let gap = by_now.saturating_sub(slept);
                if gap > ASLEEP {
                    tracing::warn!(
                        ?gap,
                        "this machine slept: what was known of its clock is that much vaguer"
                    );
                    self.tell(self.clock.slept(gap));
                }
                slept = by_now;
                if let Some(kernel) = self.kernel().await {
                    self.tell(self.clock.disciplined(kernel));
                }
                let links = transport.links().into_iter().filter(|link| link.state == LinkState::Connected);
                join_all(links.map(|link| self.compare(link.peer))).await;
                self.tell(self.clock.looked());
                self.clock.measured();
            }
        })
    }

    /// Asks a source again and again for as long as the node lives: often at first, so that strong paths need not wait,
    /// then as seldom as its operator may ask.
    pub(super) fn ask(self, at: usize, source: TimeSource) -> JoinHandle<()> {
        tokio::spawn(async move {
            let (mut heard, mut silent, mut epoch) = (0, false, self.clock.epoch());
            loop {
                match ntp::ask(&self.clock, source.as_str(), WITHIN).await {
                    Ok(sample) => {
                        (heard, silent) = (heard + 1, false);
                        self.tell(self.clock.sampled(at, sample));
                    }
                    Err(why) if !silent => {
                        silent = true;
                        tracing::warn!(source = source.as_str(), %why, "a source of time is not heard");
                    }
                    Err(_) => {}
                }
                let until = Instant::now() + if heard < AT_FIRST { BRISKLY } else { CALMLY };
                while Instant::now() < until {
                    tokio::time::sleep(BRISKLY).await;
                    if self.clock.epoch() != epoch {
                        // The clock was reset: nothing that was heard counts any more.
                        (heard, epoch) = (0, self.clock.epoch());
                        break;
                    }
                }
            }
        })
    }

    /// What the kernel says of its clock, and chrony where there is one: the worse of both, for neither may vouch.
    async fn kernel(&self) -> Option<Kernel> {
        let said = discipline::read();
        let said = said.map(|said| Kernel { disciplined: said.disciplined, max_error: said.max_error });
        let chrony = chrony::ask(self.chrony, CHRONY_WITHIN).await;
        match (said, chrony) {
            (Some(kernel), Some(chrony)) => Some(Kernel {
                disciplined: kernel.disciplined && chrony.disciplined,
                max_error: kernel.max_error.max(chrony.max_error),
            }),
            (one, other) => one.or(other),
        }
    }

    async fn compare(&self, peer: NodeId) {
        let sent = self.clock.mono();
        let answer = self.mesh.ask_node(&peer, &AskWall {}, DataClass::control(), WITHIN).await;
        match answer {
            Ok((shown, _)) => {
                let sample = Sample { sent, received: self.clock.mono(), shown, error: Duration::ZERO };
                self.tell(self.clock.compared(peer, sample));
            }
            Err(fault) if fault.delivery() == Delivery::NotSent => {}
            Err(fault) => tracing::trace!(%peer, %fault, "its clock is not compared"),
        }
    }

    /// Tells of each standing that the clock came to.
    fn tell(&self, became: Vec<Standing>) {
        for standing in became {
            let why = match &standing {
                // A node that has just started waits for its sources.
                Standing::Frozen(freeze @ Freeze::NeverAgreed { .. }) => {
                    tracing::warn!(why = %freeze, "strong paths are refused: it is not known yet what time it is");
                    Some(freeze)
                }
                Standing::Frozen(freeze) => {
                    tracing::error!(why = %freeze, "strong paths are refused: this node's clock may be too wrong");
                    Some(freeze)
                }
                standing => {
                    stands(standing);
                    None
                }
            };
            if let Some(tracer) = self.mesh.tracer() {
                tracer.incident("clock changed", Vec::new());
            }
            self.audited.saw(|| self.record(why));
        }
    }

    fn record(&self, why: Option<&Freeze>) -> Record {
        let action = if why.is_some() { "clock.freeze" } else { "clock.stand" };
        let record = Record::told(action, format!("node {}", self.me), Outcome::Done);
        match why {
            Some(why) => record.with("kind", why.name()).with("why", why.to_string()),
            None => record,
        }
    }
}

fn stands(standing: &Standing) {
    let doubts = match standing {
        Standing::Degraded(doubts) => &doubts[..],
        _ => &[],
    };
    let text = doubts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    // Without sources of its own, or on a kernel that nobody vouches for, a node may live for good.
    if doubts.iter().all(|doubt| matches!(doubt, Doubt::NoSources | Doubt::Kernel(_))) {
        tracing::info!(doubts = text, "strong paths stand");
    } else {
        tracing::warn!(doubts = text, "strong paths stand, and the clock needs looking after");
    }
}
