//! What stores promise each other: a store supports another one's lease epoch until a time, and no lease of that epoch
//! outlives the support of a quorum. After CockroachDB's Store Liveness (`pkg/kv/kvserver/storeliveness/doc.go`).
//!
//! * It decides: until when each store supports this one; whether this one's support for another has ended; whether this one's
//!   disk stands still.
//! * It never does: withdraw support before its own clock has passed the promise, give support to an epoch that it has
//!   withdrawn from, or say either before it is durable. A store whose disk has stopped therefore answers nobody, not even
//!   itself, and cannot keep a lease.
//! * Invariants: an epoch is supported again never after it was withdrawn from; a store's own epoch is higher in each life;
//!   what was promised is kept over restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_core::codec::{self, CodecError};
use rhumb_core::{Epoch, HybridTime, StoreId};
use rhumb_storage::{Batch, Family, keys};
use serde::{Deserialize, Serialize};

use super::Out;
use super::lease::Witness;

/// What one store tells another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupportMessage {
    /// Support this epoch of me until then, by my clock.
    Beat {
        /// Mine.
        epoch: Epoch,
        /// Until when.
        until: HybridTime,
    },
    /// I do.
    Supported {
        /// Yours.
        epoch: Epoch,
        /// Until when.
        until: HybridTime,
    },
    /// I support no epoch of you below this one any more.
    Withdrawn {
        /// The lowest that I would support.
        epoch: Epoch,
    },
    /// Withdraw your support from this epoch of another store, and all below it, if your clock has passed what you promised.
    Withdraw {
        /// Of which store.
        of: StoreId,
        /// Which epoch.
        epoch: Epoch,
    },
    /// I have.
    Witness(Witness),
}

/// One store's word about another one, as it is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The lowest epoch that may be supported.
    pub epoch: Epoch,
    /// Until when that epoch is supported, or was the last one that was: the highest time that was ever promised.
    pub until: HybridTime,
}

/// The support of one store.
#[derive(Debug)]
pub struct Support {
    me: StoreId,
    lasts: Duration,
    own: Epoch,
    /// Beats since this store has last answered one of its own: that waits for its disk, as all that it says does.
    unanswered: u32,
    /// Who supports this store's present epoch until when.
    supporters: BTreeMap<StoreId, HybridTime>,
    /// What this store has promised.
    promised: BTreeMap<StoreId, Promise>,
    /// What others have said that they withdrew, by whom they withdrew it from and who says so.
    witnesses: BTreeMap<(StoreId, StoreId), Witness>,
}

/// What a store says to another one.
pub type Said = (StoreId, SupportMessage);

impl Support {
    /// Begins a new life of a store, from its rows below [`keys::SUPPORT`]: with a higher epoch, which is durable before
    /// anything is said of it.
    ///
    /// # Errors
    /// What cannot be read of a row.
    pub fn begin(
        me: StoreId,
        lasts: Duration,
        rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
        out: &mut Out<Said>,
    ) -> Result<Self, CodecError> {
        let (mut own, mut promised) = (Epoch::default(), BTreeMap::new());
        for (key, value) in rows {
            match key.strip_prefix(keys::SUPPORT).and_then(|store| <[u8; 16]>::try_from(store).ok()) {
                Some(store) => {
                    promised.insert(StoreId(u128::from_be_bytes(store)), codec::decode::<Promise>(&value)?);
                }
                None => own = codec::decode(&value)?,
            }
        }
        let mut support = Self {
            me,
            lasts,
            own,
            unanswered: 0,
            supporters: BTreeMap::new(),
            promised,
            witnesses: BTreeMap::new(),
        };
        support.raise(support.own.next(), out);
        Ok(support)
    }

    /// The epoch of this life.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.own
    }

    /// Begins another epoch: all leases of this store are for others to take, and its own to take anew.
    pub fn lapse(&mut self, out: &mut Out<Said>) {
        self.raise(self.own.next(), out);
    }

    /// Asks these stores, itself among them, for support from now on. A node whose clock is frozen does not: its leases are
    /// for others to take.
    pub fn beat(&mut self, now: HybridTime, stores: impl IntoIterator<Item = StoreId>, out: &mut Out<Said>) {
        let beat = SupportMessage::Beat { epoch: self.own, until: now.plus(self.lasts) };
        for store in stores {
            self.unanswered = self.unanswered.saturating_add(u32::from(store == self.me));
            out.send((store, beat));
        }
    }

    /// A store says something.
    pub fn heard(&mut self, now: HybridTime, from: StoreId, message: SupportMessage, out: &mut Out<Said>) {
        // It says no to an epoch of its own, too, if it was asked to withdraw from that.
        if from == self.me
            && matches!(message, SupportMessage::Supported { .. } | SupportMessage::Withdrawn { .. })
        {
            self.unanswered = 0;
        }
        match message {
            SupportMessage::Beat { epoch, until } => self.asked(from, epoch, until, out),
            SupportMessage::Supported { epoch, until } if epoch == self.own => {
                let known = self.supporters.entry(from).or_default();
                *known = (*known).max(until);
            }
            SupportMessage::Supported { .. } => {}
            SupportMessage::Withdrawn { epoch } if epoch > self.own => self.raise(epoch, out),
            SupportMessage::Withdrawn { .. } => {}
            SupportMessage::Withdraw { of, epoch } => {
                if let Some(witness) = self.withdraw(now, of, epoch, out) {
                    out.send((from, SupportMessage::Witness(witness)));
                }
            }
            SupportMessage::Witness(witness) if witness.by == from => {
                let known = self.witnesses.entry((witness.of, from)).or_insert(witness);
                if (known.epoch, known.until) < (witness.epoch, witness.until) {
                    *known = witness;
                }
            }
            SupportMessage::Witness(_) => {}
        }
    }

    /// Whether this store's disk has not taken one of its beats for as long as support lasts. They come at this interval; they are
    /// counted, for hybrid time may stand still with the disk. By then what others promised it has ended, but for what clocks
    /// may differ by: no later beat was said.
    #[must_use]
    pub fn disk_stands(&self, beat: Duration) -> bool {
        beat.saturating_mul(self.unanswered.saturating_sub(1)) >= self.lasts
    }

    /// What this store has promised another one.
    #[must_use]
    pub fn promised(&self, of: StoreId) -> Promise {
        self.promised.get(&of).copied().unwrap_or_default()
    }

    /// What stores have said that they withdrew from this one.
    #[must_use]
    pub fn witnesses(&self, of: StoreId) -> Vec<Witness> {
        self.witnesses.range((of, StoreId(0))..=(of, StoreId(u128::MAX))).map(|(_, said)| *said).collect()
    }

    /// What may be said once the batch is durable that this may need.
    fn withdraw(
        &mut self,
        now: HybridTime,
        of: StoreId,
        epoch: Epoch,
        out: &mut Out<Said>,
    ) -> Option<Witness> {
        let promise = self.promised.entry(of).or_default();
        if promise.epoch <= epoch {
            if promise.until >= now {
                return None;
            }
            promise.epoch = epoch.next();
            let kept = *promise;
            self.write(of, kept, out);
        }
        let Promise { epoch, until } = self.promised[&of];
        // All below the lowest epoch that it may support.
        Some(Witness { by: self.me, of, epoch: Epoch(epoch.0 - 1), until })
    }

    /// Until when a quorum of these stores supports this one.
    #[must_use]
    pub fn until(&self, voters: &[StoreId]) -> HybridTime {
        let mut untils: Vec<_> =
            voters.iter().map(|voter| self.supporters.get(voter).copied().unwrap_or_default()).collect();
        untils.sort_unstable_by(|a, b| b.cmp(a));
        untils.get(voters.len() / 2).copied().unwrap_or_default()
    }

    fn asked(&mut self, from: StoreId, epoch: Epoch, until: HybridTime, out: &mut Out<Said>) {
        let promise = self.promised.entry(from).or_default();
        if epoch < promise.epoch {
            let epoch = promise.epoch;
            return out.send((from, SupportMessage::Withdrawn { epoch }));
        }
        let kept = Promise { epoch, until: promise.until.max(until) };
        if kept != *promise {
            *promise = kept;
            self.write(from, kept, out);
        }
        out.send((from, SupportMessage::Supported { epoch, until }));
    }

    fn raise(&mut self, epoch: Epoch, out: &mut Out<Said>) {
        self.own = epoch;
        self.supporters.clear();
        let mut batch = Batch::new();
        let bytes = codec::encode(&epoch).expect("a number is within the codec's limits");
        batch.put(Family::Meta, keys::SUPPORT, bytes);
        out.persist(batch);
    }

    fn write(&self, of: StoreId, promise: Promise, out: &mut Out<Said>) {
        let mut batch = Batch::new();
        let bytes = codec::encode(&promise).expect("two numbers are within the codec's limits");
        batch.put(Family::Meta, [keys::SUPPORT, &of.0.to_be_bytes()].concat(), bytes);
        out.persist(batch);
    }
}
