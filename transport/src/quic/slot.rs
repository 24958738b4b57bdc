//! A peer that this node stays connected with, and the connection that it has at present.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use rhumb_core::NodeId;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Link, certificate};
use crate::error::ConnectError;
use crate::link::{End, LinkState, LinkStatus};
use crate::tiebreak::{Current, Dial, Dialed, Verdict, judge};

/// Connections of one pair that may be draining at once. Each has at most half a minute.
const MAX_RETIRING: usize = 4;

/// A peer's place. There is at most one connection in it, besides those that give way to it.
pub(crate) struct Slot {
    pub(crate) peer: NodeId,
    /// Held while a connection moves in, so that the old one has failed before.
    moving: Mutex<()>,
    place: Mutex<Place>,
    changed: watch::Sender<u64>,
}

struct Place {
    address: Option<SocketAddr>,
    link: Option<(Arc<Link>, Current)>,
    /// Those that it took over from, until they have drained.
    retiring: Vec<Arc<Link>>,
    dial: Dial,
    generation: u64,
    since: Instant,
    last_error: Option<ConnectError>,
    last_end: Option<String>,
}

impl Slot {
    pub(crate) fn new(peer: NodeId) -> Self {
        let place = Place {
            address: None,
            link: None,
            retiring: Vec::new(),
            dial: Dial::Idle,
            generation: 0,
            since: Instant::now(),
            last_error: None,
            last_end: None,
        };
        Self { peer, moving: Mutex::new(()), place: Mutex::new(place), changed: watch::Sender::new(0) }
    }

    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        self.place.lock().link.as_ref().map(|(link, _)| Arc::clone(link))
    }

    /// Why there is no connection, for a caller.
    pub(crate) fn why_not(&self) -> String {
        let place = self.place.lock();
        match (&place.last_error, &place.last_end) {
            (Some(error), _) => format!("not connected; the last attempt ended so: {error}"),
            (None, Some(end)) => end.clone(),
            (None, None) => "not connected yet".to_owned(),
        }
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.place.lock().address
    }

    /// Whether the peer is dialled at this address.
    pub(crate) fn is_at(&self, address: IpAddr) -> bool {
        self.address().is_some_and(|known| known.ip().to_canonical() == address.to_canonical())
    }

    /// Where to dial the peer. True when it was not dialled before.
    pub(crate) fn set_address(&self, address: SocketAddr) -> bool {
        self.place.lock().address.replace(address).is_none()
    }

    pub(crate) fn dialling(&self, dial: Dial) {
        self.place.lock().dial = dial;
    }

    pub(crate) fn dial_failed(&self, error: ConnectError) {
        let mut place = self.place.lock();
        place.dial = Dial::Idle;
        place.last_error = Some(error);
    }

    /// The connection that this node dialled moves in, unless the peer's has meanwhile.
    pub(crate) fn move_in_dialed(&self, boot: u64, make: impl FnOnce(u64) -> Arc<Link>) -> Option<Arc<Link>> {
        let _moving = self.moving.lock();
        let mut place = self.place.lock();
        place.dial = Dial::Idle;
        if place.link.is_some() {
            return None;
        }
        Some(self.move_in(place, Current { dialed: Dialed::ByUs, boot }, make))
    }

    /// The connection that this node dialled takes over from one that it had dialled before, if that is still
    /// there. It is to [give way](Link::give_way).
    pub(crate) fn succeed_dialed(
        &self,
        old: &Arc<Link>,
        boot: u64,
        make: impl FnOnce(u64) -> Arc<Link>,
    ) -> Option<Arc<Link>> {
        let _moving = self.moving.lock();
        let mut place = self.place.lock();
        place.dial = Dial::Idle;
        let is_present = place.link.as_ref().is_some_and(|(present, _)| Arc::ptr_eq(present, old));
        if !is_present || place.retiring.len() >= MAX_RETIRING {
            return None;
        }
        place.retire();
        Some(self.move_in(place, Current { dialed: Dialed::ByUs, boot }, held(make)))
    }

    /// The connection that the peer dialled moves in, if the tie-break says so. The present one has
    /// failed before it does; or gives way to it, where this node has said that it may.
    pub(crate) fn move_in_heard(
        &self,
        own: &NodeId,
        boot: u64,
        make: impl FnOnce(u64) -> Arc<Link>,
    ) -> Option<Moved> {
        let _moving = self.moving.lock();
        let mut place = self.place.lock();
        let current = place.link.as_ref().map(|(_, current)| *current);
        if judge(own, &self.peer, current, place.dial, boot) == Verdict::Refuse {
            return None;
        }
        let present = Current { dialed: Dialed::ByPeer, boot };
        let room = place.retiring.len() < MAX_RETIRING;
        if room
            && current == Some(present)
            && place.link.as_ref().is_some_and(|(old, _)| old.expects_successor())
        {
            let old = place.retire();
            return Some(Moved { link: self.move_in(place, present, held(make)), old });
        }
        if let Some((old, _)) = place.link.take() {
            drop(place);
            old.close(&End::Replaced);
            place = self.place.lock();
        }
        Some(Moved { link: self.move_in(place, present, make), old: None })
    }

    fn move_in(
        &self,
        mut place: parking_lot::MutexGuard<'_, Place>,
        current: Current,
        make: impl FnOnce(u64) -> Arc<Link>,
    ) -> Arc<Link> {
        place.generation += 1;
        let link = make(place.generation);
        place.link = Some((Arc::clone(&link), current));
        (place.since, place.last_error, place.last_end) = (Instant::now(), None, None);
        drop(place);
        self.changed.send_modify(|changes| *changes += 1);
        link
    }

    /// A connection has ended. Nothing happens when another has moved in.
    pub(crate) fn ended(&self, link: &Arc<Link>, end: &End) {
        let mut place = self.place.lock();
        place.retiring.retain(|retiring| !Arc::ptr_eq(retiring, link));
        if place.link.as_ref().is_some_and(|(present, _)| Arc::ptr_eq(present, link)) {
            place.link = None;
            (place.since, place.last_end) = (Instant::now(), Some(end.to_string()));
            drop(place);
            self.changed.send_modify(|changes| *changes += 1);
        }
    }

    /// Every connection of the pair, those that drain among them.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        let place = self.place.lock();
        let present = place.link.iter().map(|(link, _)| Arc::clone(link));
        present.chain(place.retiring.iter().map(Arc::clone)).collect()
    }

    /// The connection that there is, with who dialled it.
    pub(crate) fn present(&self) -> Option<(Arc<Link>, Dialed)> {
        let place = self.place.lock();
        place.link.as_ref().map(|(link, current)| (Arc::clone(link), current.dialed))
    }

    /// Waits until there is a connection, or until there is none.
    pub(crate) async fn until(&self, connected: bool) {
        let mut changes = self.changed.subscribe();
        while self.place.lock().link.is_some() != connected {
            // The sender lives in this slot, so waiting cannot fail.
            let _ = changes.changed().await;
        }
    }

    pub(crate) fn status(&self) -> LinkStatus {
        let place = self.place.lock();
        let link = place.link.as_ref().map(|(link, _)| link);
        let stats = link.map(|link| link.wire.stats());
        let blocked = stats.map_or(0, |stats| {
            let sent = stats.frame_tx;
            sent.data_blocked
                + sent.stream_data_blocked
                + sent.streams_blocked_bidi
                + sent.streams_blocked_uni
        });
        let going_away = |link: &Arc<Link>| link.going_away.load(std::sync::atomic::Ordering::Acquire);
        let state = match (&place.link, &place.last_error, &place.last_end) {
            (Some((link, _)), ..) if going_away(link) => LinkState::Draining,
            (Some(_), ..) => LinkState::Connected,
            (None, Some(error), _) => LinkState::Down(error.to_string()),
            (None, None, Some(end)) => LinkState::Down(end.clone()),
            (None, None, None) => LinkState::Connecting,
        };
        LinkStatus {
            peer: self.peer.clone(),
            address: place.address,
            state,
            dialed: place.link.as_ref().map(|(_, current)| current.dialed),
            rtt: stats.map(|stats| stats.path.rtt),
            sent_packets: stats.map_or(0, |stats| stats.path.sent_packets),
            lost_packets: stats.map_or(0, |stats| stats.path.lost_packets),
            blocked,
            waiting: link.map(|link| link.waiting()).unwrap_or_default(),
            generation: place.generation,
            since: place.since.elapsed(),
            last_error: place.last_error.clone(),
            certificate: link.and_then(|link| certificate::of_peer(&link.wire)),
            draining: place.retiring.iter().filter_map(|link| certificate::of_peer(&link.wire)).collect(),
        }
    }
}

/// A connection that moved in.
pub(crate) struct Moved {
    pub(crate) link: Arc<Link>,
    /// The one that gives way to it.
    pub(crate) old: Option<Arc<Link>>,
}

impl Place {
    /// The present connection gives its place up and drains.
    fn retire(&mut self) -> Option<Arc<Link>> {
        let (old, _) = self.link.take()?;
        old.supersede();
        self.retiring.push(Arc::clone(&old));
        Some(old)
    }
}

/// The connection is made, and lets nothing out yet.
fn held(make: impl FnOnce(u64) -> Arc<Link>) -> impl FnOnce(u64) -> Arc<Link> {
    |generation| {
        let link = make(generation);
        link.hold();
        link
    }
}
