//! Reads every node's row of a pool, until two readings frame an interval without change.
//!
//! * It decides: when a reading is exact, and which nodes it needs.
//! * It never does: leave a node out. One that cannot be reached is an error that names it.
//! * Invariant: what it calls exact is the rows as they all stood at one time: every node's row was
//!   read, then every node's row was read again, and none had changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use rhumb_actors::escrow::messages::{ReadRow, Refusal, Row, ShowPool};
use rhumb_core::{Fault, NodeId, PoolName};
use thiserror::Error;

use super::Ask;
use super::directory::Directory;

/// How long one node may take for one reading.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// How many readings are tried before the pool is called moving.
const READINGS: u32 = 20;
/// How long to wait between two of them.
const BETWEEN: Duration = Duration::from_millis(250);

/// The rows of all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// By node. A node that does not know the pool has an empty row.
    pub rows: BTreeMap<NodeId, Row>,
    /// Whether nothing changed while they were read.
    pub exact: bool,
    /// How often they were read.
    pub readings: u32,
}

/// Why the rows could not be read.
#[derive(Debug, Error)]
pub enum SurveyError {
    /// A node has no answer.
    #[error("node {node} has no answer, and an audit needs every node: {fault}")]
    Unreachable {
        /// Which.
        node: NodeId,
        /// Why.
        fault: Box<Fault>,
    },
    /// A node of the mesh whose address is not known.
    #[error(
        "node {0} belongs to the mesh, and its address is not known here: an audit needs every node (give --data DIR of `rhumb dev`, or one --endpoint for each node)"
    )]
    Unknown(NodeId),
    /// The pool is refused, for all nodes alike.
    #[error("{0}")]
    Refused(Box<Refusal>),
}

/// Reads the rows of all nodes of a pool.
///
/// # Errors
/// [`SurveyError`] names the node.
pub async fn survey(ask: &impl Ask, directory: &Directory, pool: &PoolName) -> Result<Survey, SurveyError> {
    let nodes: Vec<NodeId> = directory.nodes().iter().map(|(node, _)| node.clone()).collect();
    needs_all(ask, directory, &nodes, pool).await?;
    let mut last = read(ask, &nodes, pool).await?;
    let mut readings = 1;
    loop {
        for node in named_in(&last) {
            known(directory, node)?;
        }
        let next = read(ask, &nodes, pool).await?;
        readings += 1;
        let exact = same(&last, &next);
        if exact || readings >= READINGS {
            return Ok(Survey { rows: next, exact, readings });
        }
        last = next;
        tokio::time::sleep(BETWEEN).await;
    }
}

/// Refuses when a node that the first one knows of is not in the directory.
async fn needs_all(
    ask: &impl Ask,
    directory: &Directory,
    nodes: &[NodeId],
    pool: &PoolName,
) -> Result<(), SurveyError> {
    let message = ShowPool { pool: pool.clone() };
    for node in nodes {
        match ask.ask(node, &message, READ_DEADLINE).await {
            Err(fault) => {
                return Err(SurveyError::Unreachable { node: node.clone(), fault: Box::new(fault) });
            }
            Ok(Err(_)) => {}
            Ok(Ok(view)) => {
                return view.others.keys().chain([&view.home]).try_for_each(|node| known(directory, node));
            }
        }
    }
    Ok(())
}

fn known(directory: &Directory, node: &NodeId) -> Result<(), SurveyError> {
    if directory.knows(node) { Ok(()) } else { Err(SurveyError::Unknown(node.clone())) }
}

async fn read(
    ask: &impl Ask,
    nodes: &[NodeId],
    pool: &PoolName,
) -> Result<BTreeMap<NodeId, Row>, SurveyError> {
    let message = ReadRow { pool: pool.clone() };
    let answers = join_all(nodes.iter().map(|node| ask.ask(node, &message, READ_DEADLINE))).await;
    let mut rows = BTreeMap::new();
    let mut strangers = 0;
    for (node, answer) in nodes.iter().zip(answers) {
        let row = match answer {
            Ok(Ok(row)) => row,
            // Policy keeps the pool away from this node, or it has not heard of it yet.
            Ok(Err(Refusal::NoSuchPool(_))) => {
                strangers += 1;
                Row::default()
            }
            Ok(Err(refusal)) => return Err(SurveyError::Refused(Box::new(refusal))),
            Err(fault) => {
                return Err(SurveyError::Unreachable { node: node.clone(), fault: Box::new(fault) });
            }
        };
        rows.insert(node.clone(), row);
    }
    if strangers == rows.len() {
        return Err(SurveyError::Refused(Box::new(Refusal::NoSuchPool(pool.clone()))));
    }
    Ok(rows)
}

/// Every node that a row speaks of.
fn named_in(rows: &BTreeMap<NodeId, Row>) -> BTreeSet<&NodeId> {
    rows.values().flat_map(|row| row.granted.keys().chain(row.accepted.keys())).collect()
}

/// Whether two readings are of the same rows. What a node only counts for people may differ.
fn same(one: &BTreeMap<NodeId, Row>, other: &BTreeMap<NodeId, Row>) -> bool {
    let bare = |row: &Row| Row { tallies: Default::default(), ..row.clone() };
    one.len() == other.len()
        && one.iter().all(|(node, row)| other.get(node).is_some_and(|other| bare(row) == bare(other)))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use rhumb_actors::escrow::messages::{Durability, Figures, PoolSpec, PoolView, Tallies};
    use rhumb_actors::remote::Remote;
    use rhumb_core::{DataClass, FaultKind, HybridTime};

    use super::*;

    /// A mesh whose nodes answer readings from a script; the last one repeats.
    struct Scripted {
        rows: Mutex<BTreeMap<NodeId, VecDeque<Result<Row, Fault>>>>,
        founding: Vec<NodeId>,
    }

    impl Scripted {
        fn answer(&self, node: &NodeId, name: &str) -> Result<Result<Row, Refusal>, Fault> {
            let mut rows = self.rows.lock().expect("no panic");
            let Some(script) = rows.get_mut(node) else {
                return Ok(Err(Refusal::NoSuchPool(PoolName::new("concert").expect("valid"))));
            };
            let at_end = script.len() == 1 || name == ShowPool::NAME;
            let next = if at_end { script[0].clone() } else { script.pop_front().expect("not at its end") };
            next.map(Ok)
        }

        fn view(&self, node: &NodeId, row: Row) -> PoolView {
            let others = self.founding.iter().filter(|other| *other != node);
            let pool = PoolName::new("concert").expect("valid");
            PoolView {
                spec: PoolSpec {
                    name: pool,
                    class: DataClass::control(),
                    supply: 1,
                    weights: BTreeMap::new(),
                    created: HybridTime::ZERO,
                    debt: 0,
                    reserve: None,
                    per_customer: None,
                    durability: Durability::Local,
                },
                home: node.clone(),
                node: node.clone(),
                row,
                others: others.map(|other| (other.clone(), (Figures::default(), Duration::ZERO))).collect(),
                tail: false,
                reconciled: None,
            }
        }
    }

    impl Ask for Scripted {
        async fn ask<M: Remote + Sync>(&self, node: &NodeId, _: &M, _: Duration) -> Result<M::Reply, Fault> {
            let row = self.answer(node, M::NAME)?;
            let reply: Box<dyn std::any::Any> = if M::NAME == ShowPool::NAME {
                Box::new(row.map(|row| self.view(node, row)))
            } else {
                Box::new(row)
            };
            Ok(*reply.downcast::<M::Reply>().expect("the reply of what was asked"))
        }
    }

    fn node(region: &str) -> NodeId {
        NodeId::new(region, "n1").expect("valid")
    }

    fn row(version: u64) -> Result<Row, Fault> {
        Ok(Row { version, ..Row::default() })
    }

    fn run(
        founding: &[&str],
        scripts: Vec<(&str, Vec<Result<Row, Fault>>)>,
        directory: &[&str],
    ) -> Result<Survey, SurveyError> {
        let rows = scripts.into_iter().map(|(name, script)| (node(name), script.into())).collect();
        let mesh = Scripted {
            rows: Mutex::new(rows),
            founding: founding.iter().map(|region| node(region)).collect(),
        };
        let address = "127.0.0.1:1".parse().expect("an address");
        let directory = Directory::of(directory.iter().map(|region| (node(region), address)).collect());
        let pool = PoolName::new("concert").expect("valid");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("runs");
        runtime.block_on(survey(&mesh, &directory, &pool))
    }

    #[test]
    fn two_equal_readings_are_exact() {
        let counted =
            Row { version: 3, tallies: Tallies { held: 9, ..Tallies::default() }, ..Row::default() };
        let scripts = vec![("eu", vec![row(1), row(2), Ok(counted), row(3)]), ("us", vec![row(7)])];
        let survey = run(&["eu", "us"], scripts, &["eu", "us"]).expect("reads");
        assert!(survey.exact);
        assert_eq!((survey.readings, survey.rows[&node("eu")].version), (4, 3));
    }

    #[test]
    fn a_pool_that_never_rests_is_moving() {
        let busy = (0..100).map(row).collect();
        let survey = run(&["us"], vec![("us", busy)], &["us"]).expect("reads");
        assert_eq!((survey.exact, survey.readings), (false, READINGS));
    }

    #[test]
    fn an_unreachable_node_is_named() {
        let gone = vec![Err(Fault::not_sent(FaultKind::Draining))];
        let error =
            run(&["eu", "us"], vec![("eu", vec![row(1)]), ("us", gone)], &["eu", "us"]).expect_err("gone");
        assert!(error.to_string().starts_with("node us/n1 has no answer"), "{error}");
    }

    #[test]
    fn a_node_whose_address_is_unknown_is_named() {
        let error = run(&["eu", "us"], vec![("eu", vec![row(1)])], &["eu"]).expect_err("us is not known");
        assert!(matches!(&error, SurveyError::Unknown(missing) if *missing == node("us")), "{error}");
    }

    #[test]
    fn a_node_that_policy_keeps_away_has_an_empty_row() {
        let survey = run(&["eu", "us"], vec![("eu", vec![row(1)])], &["eu", "us"]).expect("reads");
        assert_eq!(survey.rows[&node("us")], Row::default());
        let none = run(&["eu"], vec![], &["eu"]).expect_err("nobody knows it");
        assert!(matches!(&none, SurveyError::Refused(why) if why.code() == "no_such_pool"), "{none}");
    }
}
