//! The clients and operators that are connected.
//!
//! * It decides: whether one more may be.
//! * It never does: read a certificate. Who issued it is known since its handshake.
//! * Invariants: one principal has at most half of the places, so that one certificate keeps nobody else out; a
//!   few places are for operators alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use rhumb_core::{Principal, Role};

use super::Link;

/// Places beside those of `max_clients` that only operators have.
pub(crate) const FOR_OPERATORS: usize = 16;

/// Who is connected, by the number of the connection.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    all: BTreeMap<u64, (Arc<Link>, String)>,
    of_each: HashMap<Principal, usize>,
}

impl Guests {
    /// Whether one more connection of this principal may be, where so many clients may.
    pub(crate) fn has_room(&self, principal: &Principal, places: usize) -> Result<(), String> {
        let of_this = self.of_each.get(principal).copied().unwrap_or_default();
        let places = places + if principal.role == Role::Operator { FOR_OPERATORS } else { 0 };
        if self.all.len() >= places {
            return Err("as many clients as may be".to_owned());
        }
        let share = places.div_ceil(2);
        if of_this >= share {
            return Err(format!("{principal} has {of_this} connections, as many as one may have"));
        }
        Ok(())
    }

    pub(crate) fn come(&mut self, number: u64, link: Arc<Link>, issuer: String) {
        *self.of_each.entry(link.peer.principal.clone()).or_default() += 1;
        self.all.insert(number, (link, issuer));
    }

    pub(crate) fn leave(&mut self, number: u64) {
        let Some((link, _)) = self.all.remove(&number) else { return };
        if let Some(of_this) = self.of_each.get_mut(&link.peer.principal) {
            *of_this -= 1;
            if *of_this == 0 {
                self.of_each.remove(&link.peer.principal);
            }
        }
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.all.values().map(|(link, _)| link)
    }

    /// How many, by who issued their certificates.
    pub(crate) fn by_issuer(&self) -> BTreeMap<String, u64> {
        let mut by_issuer = BTreeMap::new();
        for (_, issuer) in self.all.values().filter(|(_, issuer)| !issuer.is_empty()) {
            *by_issuer.entry(issuer.clone()).or_default() += 1;
        }
        by_issuer
    }
}
