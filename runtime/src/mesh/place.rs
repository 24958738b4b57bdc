//! Where an actor lives: a pure function of its name, the founding list and the policy.
//!
//! * It decides: the one node that may hold the actor; for types that move, who comes after it.
//! * It never does: look at health or load. An owner that cannot be reached is unreachable; who takes its place, and when, the
//!   fences say ([`owners`](super::owners)), and only for types that move.
//! * Invariant: the owner stands in a region that may hold the class of the actor's state, and in the
//!   region that the address demands.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rhumb_core::{DataClass, Fault, FaultKind, NodeId};
use rhumb_topology::policy::{PolicySnapshot, Use};
use rhumb_topology::{Founding, order_among, owner_among};

use crate::host::id::Shown;

/// What the owner is a function of, besides the name.
pub(crate) struct Places {
    pub(crate) founding: Founding,
    pub(crate) policy: Arc<ArcSwap<PolicySnapshot>>,
}

impl Places {
    /// The owner of an actor, which follows from its name as it is shown: whoever asks for it need not
    /// say the key.
    ///
    /// # Errors
    /// No node may hold it: the policy's reason.
    pub(crate) fn owner(&self, id: &Shown, class: &DataClass) -> Result<&NodeId, Fault> {
        let (allowed, why) = self.allowed(id, class);
        owner_among(allowed, &kind(id), &id.tag()).ok_or_else(|| nobody(id, why))
    }

    /// All that may hold an actor, the owner first, and after each one the next.
    ///
    /// # Errors
    /// No node may hold it: the policy's reason.
    pub(crate) fn order(&self, id: &Shown, class: &DataClass) -> Result<Vec<&NodeId>, Fault> {
        let (allowed, why) = self.allowed(id, class);
        if allowed.is_empty() { Err(nobody(id, why)) } else { Ok(order_among(allowed, &kind(id), &id.tag())) }
    }

    /// The nodes that may hold an actor, and why another one may not.
    fn allowed(&self, id: &Shown, class: &DataClass) -> (Vec<&NodeId>, Option<String>) {
        let (policy, region) = (self.policy.load(), id.region.as_ref());
        let nodes = self.founding.nodes().iter().filter(|node| region.is_none_or(|r| *r == node.region));
        let mut why = None;
        let allowed = nodes.filter(|node| {
            let permitted = policy.permits(&node.region, Use::Hold, class);
            permitted.map_err(|reason| why = Some(reason)).is_ok()
        });
        let allowed = allowed.collect();
        (allowed, why)
    }
}

impl Places {
    /// The nodes that may have equal actors whose state is of this class.
    pub(crate) fn equals(&self, class: &DataClass) -> Vec<NodeId> {
        let policy = self.policy.load();
        let permitted = |node: &&NodeId| policy.permits(&node.region, Use::Hold, class).is_ok();
        self.founding.nodes().iter().filter(permitted).cloned().collect()
    }
}

fn nobody(id: &Shown, why: Option<String>) -> Fault {
    let region = id.region.as_ref();
    let place = region.map_or_else(|| "the mesh".to_owned(), |region| format!("region {region}"));
    let why = why.unwrap_or_else(|| "there is none".to_owned());
    let what = format!("no node of {place} may hold actors of type {}: {why}", id.kind);
    Fault::not_sent(FaultKind::NotHosted(what))
}

/// Actors have names of their own: a pool and an actor of one name need not live together.
fn kind(id: &Shown) -> String {
    format!("actor:{}", id.kind)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rhumb_core::Region;

    use super::*;
    use crate::host::id::ActorId;

    fn places(policy: &str) -> Places {
        let nodes = ["us-east/n1", "us-east/n2", "eu-west/n1", "ap-south/n1"];
        let nodes = nodes.map(|node| node.parse().expect("a node"));
        let policy = rhumb_topology::Policy::parse(policy).expect("a good policy");
        let founding = Founding::new(nodes).expect("a list");
        let policy = PolicySnapshot::compile(policy, founding.regions(), 0);
        Places { founding, policy: Arc::new(ArcSwap::from_pointee(policy)) }
    }

    const POLICY: &str = r#"
        version = 1
        [jurisdictions]
        eu = ["eu-west"]
        world = ["us-east", "ap-south"]
        [classes.personal]
        hold = ["jurisdiction:eu"]
        read = ["all"]
        carry = ["all"]
        [classes.inventory]
        hold = ["all"]
        read = ["all"]
        carry = ["all"]
    "#;

    fn owner(region: Option<&str>, key: &str, class: &str) -> Result<String, String> {
        let region = region.map(|region| Region::new(region).expect("valid"));
        let class = DataClass::new(class).expect("valid");
        let owner =
            places(POLICY).owner(&ActorId::new("cart", region, key).shown(), &class).map(ToString::to_string);
        owner.map_err(|fault| fault.kind.to_string())
    }

    #[test]
    fn keys_spread_over_the_nodes_that_may_hold_them() {
        let mut spread = BTreeMap::new();
        for key in 0..400 {
            *spread.entry(owner(None, &key.to_string(), "inventory").expect("a node")).or_insert(0) += 1;
            assert_eq!(owner(None, &key.to_string(), "personal").as_deref(), Ok("eu-west/n1"));
        }
        assert!(spread.len() == 4 && spread.values().all(|keys| *keys > 60), "{spread:?}");
    }

    #[test]
    fn a_strict_region_is_never_left() {
        for key in 0..100 {
            let owner = owner(Some("us-east"), &key.to_string(), "inventory").expect("a node");
            assert!(owner.starts_with("us-east/"), "{owner}");
        }
        let refused = owner(Some("us-east"), "1", "personal").expect_err("only eu may hold it");
        assert!(refused.contains("region us-east may not hold class personal"), "{refused}");
        assert!(owner(Some("mars"), "1", "inventory").expect_err("no such region").contains("there is none"));
        assert!(owner(None, "1", "secret").expect_err("no such class").contains("has no class secret"));
    }
}
