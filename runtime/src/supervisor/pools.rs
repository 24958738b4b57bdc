//! Which pools this node knows, for whoever asks over QUIC (`rhumb pool list`).
//!
//! * It decides: which of them stand in one answer.
//! * It never does: tell of a pool under another class than the pool's own. The gates judge each answer.

use rhumb_actors::escrow::messages::{LISTED_AT_ONCE, ListPools, PoolList, PoolListed, Refusal};
use rhumb_actors::escrow::{EscrowHandle, EscrowReport, PoolReport};
use rhumb_core::{Fault, FaultKind, NodeId};
use rhumb_topology::{Founding, pool_home};

use super::quorum::Quorum;
use crate::mesh::registry::{Call, Registry, ServedTwice};

/// Serves [`ListPools`].
pub(super) fn serve(
    registry: &mut Registry,
    (escrow, quorum): (&EscrowHandle, &Quorum),
    me: &NodeId,
    founding: &Founding,
) -> Result<(), ServedTwice> {
    let (escrow, quorum) = (escrow.clone(), quorum.clone());
    let (me, founding) = (me.clone(), founding.clone());
    registry.serve(move |call: Call<ListPools>| {
        let (escrow, quorum) = (escrow.clone(), quorum.clone());
        let (me, founding) = (me.clone(), founding.clone());
        async move {
            let silent = || Fault::unknown(FaultKind::Deadline("waiting for the escrow actor".into()));
            let mut report = escrow.report().await.ok_or_else(silent)?;
            report.pools.extend(quorum.reports().await);
            let list = listed(&call.message, &report, me, |pool| pool_home(&founding, &pool.pool).clone());
            Ok((Ok::<_, Refusal>(list), call.message.class))
        }
    })
}

fn listed(
    asked: &ListPools,
    report: &EscrowReport,
    node: NodeId,
    home: impl Fn(&PoolReport) -> NodeId,
) -> PoolList {
    let of_class = report.pools.iter().filter(|pool| pool.class == asked.class);
    let mut pools: Vec<&PoolReport> =
        of_class.filter(|pool| asked.after.as_ref().is_none_or(|after| pool.pool > *after)).collect();
    pools.sort_by(|a, b| a.pool.cmp(&b.pool));
    let more = pools.len() > LISTED_AT_ONCE;
    pools.truncate(LISTED_AT_ONCE);
    let mut classes: Vec<_> = report.pools.iter().map(|pool| pool.class.clone()).collect();
    classes.sort();
    classes.dedup();
    let one = |pool: &&PoolReport| PoolListed {
        pool: pool.pool.clone(),
        supply: pool.supply,
        home: home(pool),
        available: pool.row.available,
        held: pool.row.held + pool.row.debt.held,
        consumed: pool.row.consumed + pool.row.debt.consumed,
        returned: pool.row.returned + pool.row.debt.returned,
    };
    PoolList { node, pools: pools.iter().map(one).collect(), more, classes }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rhumb_actors::escrow::messages::{Row, Standing};
    use rhumb_core::{DataClass, PoolName};

    use super::*;

    fn pool(name: &str, class: &str) -> PoolReport {
        PoolReport {
            pool: PoolName::new(name).expect("valid"),
            class: DataClass::new(class).expect("valid"),
            row: Row { available: 3, ..Row::default() },
            supply: 9,
            stranded: Default::default(),
            levelled: Default::default(),
            reconciled: None,
            reconciliations: Default::default(),
        }
    }

    fn ask(report: &EscrowReport, class: &str, after: Option<&str>) -> PoolList {
        let class = DataClass::new(class).expect("valid");
        let asked = ListPools { class, after: after.map(|name| PoolName::new(name).expect("valid")) };
        let node = NodeId::new("us", "n1").expect("valid");
        listed(&asked, report, node.clone(), |_| node.clone())
    }

    #[test]
    fn a_class_is_told_by_itself_and_a_long_list_in_parts() {
        let mut pools: Vec<_> =
            (0..LISTED_AT_ONCE + 1).rev().map(|n| pool(&format!("seat-{n:04}"), "inventory")).collect();
        pools.push(pool("ward", "patient"));
        let (witnessed, standing) = (BTreeMap::new(), Standing::Proven);
        let report = EscrowReport { standing, pools, witnessed, keys: 0, holds: 0, ignored: 0, dropped: 0 };
        let names = |list: &PoolList| list.pools.iter().map(|p| p.pool.to_string()).collect::<Vec<_>>();
        let first = ask(&report, "inventory", None);
        assert_eq!((first.pools.len(), first.more), (LISTED_AT_ONCE, true));
        let last = names(&first).pop().expect("there are some");
        let rest = ask(&report, "inventory", Some(&last));
        assert_eq!((names(&rest), rest.more), (vec![format!("seat-{LISTED_AT_ONCE:04}")], false));
        assert_eq!(names(&ask(&report, "patient", None)), ["ward"]);
        let none = ask(&report, "control", None);
        assert_eq!(none.classes.iter().map(DataClass::as_str).collect::<Vec<_>>(), ["inventory", "patient"]);
        assert!(none.pools.is_empty());
    }
}
