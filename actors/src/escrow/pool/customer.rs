//! What one customer may have of a limited pool.
//!
//! * It decides: at which node a customer's holds are decided, and whether one more is allowed.
//! * It never does: count a customer at two nodes. The home of a customer is a pure function of the pool
//!   and the customer, so the limit holds over the whole mesh; a home that cannot be reached is
//!   `Unreachable`, never a second count.
//! * Invariant: at a customer's home, what they hold and have bought and not given back is at most the
//!   limit.

use rhumb_core::canary::{self, Canary};
use rhumb_core::{Mono, NodeId};
use rhumb_topology::owner_among;

use super::Pool;
use crate::escrow::messages::{Hold, Refusal};
use crate::escrow::settings::EscrowSettings;

/// The kind under which customers have their home among a pool's nodes.
const CUSTOMER: &str = "customer";
/// When a caller that found no room may ask again.
const FULL: std::time::Duration = std::time::Duration::from_millis(100);

impl Pool {
    /// Whether the pool limits what one customer may have.
    pub(crate) fn is_limited(&self) -> bool {
        self.ledger.pool().more.per_customer.is_some()
    }

    /// Whether a hold's demand is this node's: not when its customer's home is another.
    pub(crate) fn is_sold_here(&self, hold: &Hold, me: &NodeId) -> bool {
        !matches!(self.customer_home(hold, me), Ok(Some(_)))
    }

    /// The other node at which this hold is to be decided, if it is another.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] when the pool must know for whom the hold is and does not.
    pub(crate) fn customer_home(&self, hold: &Hold, me: &NodeId) -> Result<Option<NodeId>, Refusal> {
        let Some(limit) = self.ledger.pool().more.per_customer else { return Ok(None) };
        let Some(customer) = hold.customer else {
            return Err(Refusal::Invalid(format!(
                "one customer may have {limit} units of pool {}: say for whom the hold is",
                hold.pool
            )));
        };
        // The holder of the reserve has no customers: it would have no units for them in the end.
        let reserve = self.ledger.pool().more.reserve.as_ref().map(|reserve| &reserve.node);
        let nodes = self.lines.keys().chain([me]).filter(|node| Some(*node) != reserve);
        let home = owner_among(nodes, CUSTOMER, &format!("{}/{customer}", hold.pool));
        Ok(home.filter(|home| *home != me).cloned())
    }

    /// Whether the customer may have so many more.
    ///
    /// # Errors
    /// [`Refusal::CustomerLimit`] when not.
    pub(crate) fn check_customer(&self, hold: &Hold) -> Result<(), Refusal> {
        let (Some(limit), Some(customer)) = (self.ledger.pool().more.per_customer, hold.customer) else {
            return Ok(());
        };
        let has = self.ledger.holds().of_customer(customer);
        if has.saturating_add(hold.qty) <= limit || canary::sings(Canary::CustomerLimitForgotten) {
            return Ok(());
        }
        Err(Refusal::CustomerLimit { limit, has })
    }

    /// Whether one more hold may be passed on to another node.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when too many are under way.
    pub(crate) fn make_room(&mut self, now: Mono, settings: &EscrowSettings) -> Result<(), Refusal> {
        self.forwards.retain(|_, until| now < *until);
        if self.forwards.len() >= settings.max_forwards {
            return Err(Refusal::Overloaded { retry_after: FULL });
        }
        Ok(())
    }
}
