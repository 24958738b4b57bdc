//! What each customer of a limited pool has on the node that is the customer's home.
//!
//! * It decides: how many units a customer has, held or bought and not given back.
//! * It never does: know who a customer is. It knows a hash.
//! * Invariant: units in holds and sales that are remembered are counted from their records; those of
//!   sales that are forgotten stand in the customer's own record, and never fall.

use std::collections::BTreeMap;

use super::messages::CustomerTag;
use super::records::CustomerRow;

/// The customers of one pool on one node.
#[derive(Debug, Default)]
pub(crate) struct Customers {
    /// In holds and sales that are remembered.
    live: BTreeMap<CustomerTag, u64>,
    /// In sales that are not.
    kept: BTreeMap<CustomerTag, CustomerRow>,
}

impl Customers {
    pub(crate) fn recovered(kept: BTreeMap<CustomerTag, CustomerRow>) -> Self {
        Self { kept, live: BTreeMap::new() }
    }

    /// What a customer has.
    pub(crate) fn has(&self, customer: CustomerTag) -> u64 {
        let live = self.live.get(&customer).copied().unwrap_or(0);
        live + self.kept.get(&customer).map_or(0, |row| row.units)
    }

    /// A customer has more.
    pub(crate) fn take(&mut self, customer: Option<CustomerTag>, units: u64) {
        let Some(customer) = customer else { return };
        *self.live.entry(customer).or_default() += units;
    }

    /// A customer has less.
    pub(crate) fn give_back(&mut self, customer: Option<CustomerTag>, units: u64) {
        let Some(customer) = customer else { return };
        let live = self.live.get_mut(&customer).expect("who gives back has something");
        *live = live.checked_sub(units).expect("nobody gives back more than they have");
        if *live == 0 {
            self.live.remove(&customer);
        }
    }

    /// A sale is forgotten, and what the customer has of it is not: the record that says so.
    pub(crate) fn keep(
        &mut self,
        customer: Option<CustomerTag>,
        units: u64,
    ) -> Option<(CustomerTag, CustomerRow)> {
        if units == 0 {
            return None;
        }
        self.give_back(customer, units);
        let customer = customer?;
        let row = self.kept.entry(customer).or_insert(CustomerRow { units: 0 });
        row.units += units;
        Some((customer, *row))
    }
}
