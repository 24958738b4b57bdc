//! Where a name lives: the owner of (kind, key) by rendezvous hashing, "highest random weight"
//! (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998).
//!
//! * It decides: the one owner of a key among a list of nodes.
//! * It never does: look at health, load or distance. An owner that cannot be reached is unreachable;
//!   nobody else becomes the owner.
//! * Invariant: a pure function of its arguments, for ever (golden vectors hold it). Taking a node
//!   off the list moves only that node's keys; the others stay where they are.
//!
//! The weight of a node for a key is the SHA-256 of, in this order: `rhumb-owner-v1` and a line feed;
//! the length of the kind in bytes (32 bits, big-endian) and the kind; the length of the key likewise
//! and the key; the node as `region/name`. Weights compare as big-endian numbers; the highest owns.

use rhumb_core::{NodeId, PoolName};
use sha2::{Digest, Sha256};

use crate::founding::Founding;

const DOMAIN: &str = "rhumb-owner-v1\n";

/// The kind under which pools have their homes.
pub const POOL: &str = "pool";

/// The owner of a key of this kind over the founding list.
#[must_use]
pub fn owner<'a>(founding: &'a Founding, kind: &str, key: &str) -> &'a NodeId {
    owner_among(founding.nodes(), kind, key).expect("a founding list has at least one node")
}

/// The owner of a key of this kind among the given nodes (those that policy allows), in any order;
/// none of none.
#[must_use]
pub fn owner_among<'a>(
    nodes: impl IntoIterator<Item = &'a NodeId>,
    kind: &str,
    key: &str,
) -> Option<&'a NodeId> {
    let prefix = prefix(kind, key);
    nodes.into_iter().max_by_key(|node| weight(prefix.clone(), node))
}

/// The given nodes in the order in which they would own a key of this kind, if those before were not there. The first is that
/// of [`owner_among`].
#[must_use]
pub fn order_among<'a>(
    nodes: impl IntoIterator<Item = &'a NodeId>,
    kind: &str,
    key: &str,
) -> Vec<&'a NodeId> {
    let prefix = prefix(kind, key);
    let mut order: Vec<_> = nodes.into_iter().collect();
    order.sort_by_cached_key(|node| std::cmp::Reverse(weight(prefix.clone(), node)));
    order
}

/// The home of a pool: a pure function of its name over the founding list, for ever.
#[must_use]
pub fn pool_home<'a>(founding: &'a Founding, pool: &PoolName) -> &'a NodeId {
    owner(founding, POOL, pool.as_str())
}

fn prefix(kind: &str, key: &str) -> Sha256 {
    let mut prefix = Sha256::new();
    prefix.update(DOMAIN);
    for part in [kind, key] {
        let length = u32::try_from(part.len()).expect("kinds and keys are far below 4 GiB");
        prefix.update(length.to_be_bytes());
        prefix.update(part);
    }
    prefix
}

fn weight(prefix: Sha256, node: &NodeId) -> [u8; 32] {
    prefix.chain_update(node.to_string()).finalize().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::expect;

    use super::*;
    use crate::founding::founding;

    const MESH: &str = "us-east/n1 us-east/n2 eu-central/n1 ap-southeast/n1";

    #[test]
    fn homes_never_change() {
        // A changed home would mint a second pool of the same name elsewhere.
        let mesh = founding(MESH);
        let homes: Vec<String> = ["concert", "stadium", "tickets", "a", "b", "c"]
            .iter()
            .map(|name| {
                let pool = PoolName::new(name).expect("valid");
                format!("{name} {}", pool_home(&mesh, &pool))
            })
            .collect();
        expect![[r#"
            concert us-east/n2
            stadium ap-southeast/n1
            tickets ap-southeast/n1
            a us-east/n2
            b us-east/n1
            c ap-southeast/n1"#]]
        .assert_eq(&homes.join("\n"));
    }

    #[test]
    fn a_node_that_leaves_moves_only_its_own_keys() {
        let mesh = founding(MESH);
        for gone in mesh.nodes() {
            let rest: Vec<&NodeId> = mesh.nodes().iter().filter(|node| *node != gone).collect();
            for key in (0..2_000).map(|i| i.to_string()) {
                let before = owner(&mesh, "cart", &key);
                let after = owner_among(rest.iter().copied(), "cart", &key).expect("nodes are left");
                assert!(before == gone || before == after, "{key} moved from {before} to {after}");
            }
        }
    }

    #[test]
    fn the_order_of_owners_is_that_in_which_nodes_that_leave_are_followed() {
        let mesh = founding(MESH);
        for key in (0..200).map(|i| i.to_string()) {
            let order = order_among(mesh.nodes(), "cart", &key);
            for (at, node) in order.iter().enumerate() {
                let left = order[at..].iter().copied();
                assert_eq!(owner_among(left, "cart", &key), Some(*node), "{key}: {order:?}");
            }
            assert_eq!(order.len(), 4);
        }
    }

    #[test]
    fn keys_spread_evenly() {
        let mesh = founding(MESH);
        let mut owned: BTreeMap<&NodeId, u32> = BTreeMap::new();
        for key in 0..8_000 {
            *owned.entry(owner(&mesh, "cart", &key.to_string())).or_default() += 1;
        }
        // 2,000 each on average; the binomial's standard deviation is 39, so five of them are 195.
        assert_eq!(owned.len(), 4);
        assert!(owned.values().all(|n| (1_805..=2_195).contains(n)), "{owned:?}");
    }

    #[test]
    fn kinds_and_keys_do_not_run_into_each_other() {
        let mesh = founding(&(0..64).map(|i| format!("r/n{i} ")).collect::<String>());
        let differing = (0..200)
            .filter(|i| owner(&mesh, "ab", &format!("c{i}")) != owner(&mesh, "a", &format!("bc{i}")))
            .count();
        assert!(differing > 180, "only {differing} of 200 differ");
    }

    #[test]
    fn the_order_of_the_nodes_does_not_matter() {
        let mesh = founding(MESH);
        for key in (0..100).map(|i| i.to_string()) {
            assert_eq!(Some(owner(&mesh, "x", &key)), owner_among(mesh.nodes().iter().rev(), "x", &key));
        }
        assert_eq!(owner_among([], "x", "y"), None);
    }
}
