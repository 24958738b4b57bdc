//! `rhumb pool list`.

use std::collections::BTreeSet;
use std::fmt;

use clap::Args;
use rhumb_actors::escrow::messages::{ListPools, PoolListed};
use rhumb_core::{DataClass, NodeId, PoolName, Region};
use serde::Serialize;

use super::connect::{Connect, ask, nodes_from};
use super::output::{Done, Failure, Output};
use crate::client::MeshClient;

/// List the pools that a region knows.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb pool list\n  rhumb pool list --region eu-central -o json\n\nA region learns of a new pool when its first units arrive. The figures are the answering node's own: rhumb pool show has the others', rhumb pool audit exact sums. Pools whose class the policy keeps from who asks are not listed; it is said which classes these are."
)]
pub struct List {
    /// Whose pools; any region's unless given.
    #[arg(long)]
    region: Option<Region>,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Serialize)]
struct ListAnswer {
    node: String,
    pools: Vec<Listed>,
    /// Classes of pools that the policy does not let through to who asks.
    withheld: Vec<DataClass>,
}

#[derive(Debug, Serialize)]
struct Listed {
    pool: PoolName,
    class: DataClass,
    supply: u64,
    home: String,
    available: u64,
    held: u64,
    consumed: u64,
    returned: u64,
}

impl List {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.client().await?;
        let nodes = match &self.region {
            Some(region) => client.directory().nodes_in(Some(region))?,
            None => nodes_from(client.directory(), |node| node.region == *client.region()),
        };
        let answer = gather(&client, &nodes).await;
        client.close().await;
        let answer = answer?;
        output.answer(&answer, &answer);
        Ok(Done::Well)
    }
}

/// Asks the first node that answers for its classes, and then for each of them.
async fn gather(client: &MeshClient, nodes: &[NodeId]) -> Result<ListAnswer, Failure> {
    let of = |class: DataClass, after| ListPools { class, after };
    let asked = ask(client, nodes, |_| of(DataClass::control(), None)).await;
    let (node, first) = (asked.node, asked.answer??);
    let (mut pools, mut withheld) = (Vec::new(), Vec::new());
    for class in BTreeSet::from_iter(first.classes) {
        match of_class(client, &node, &class).await {
            Ok(found) => pools.extend(found.into_iter().map(|listed| Listed::new(listed, class.clone()))),
            Err(Failure::Refused(_)) => withheld.push(class),
            Err(failure) => return Err(failure),
        }
    }
    pools.sort_by(|a, b| a.pool.cmp(&b.pool));
    Ok(ListAnswer { node: node.to_string(), pools, withheld })
}

async fn of_class(client: &MeshClient, node: &NodeId, class: &DataClass) -> Result<Vec<PoolListed>, Failure> {
    let mut pools: Vec<PoolListed> = Vec::new();
    loop {
        let after = pools.last().map(|last| last.pool.clone());
        let message = ListPools { class: class.clone(), after };
        let part = ask(client, std::slice::from_ref(node), |_| message.clone()).await.answer??;
        // Each part is after the last, so that this ends whatever a node says.
        let more = part.more && part.pools.last().map(|last| &last.pool) > message.after.as_ref();
        pools.extend(part.pools);
        if !more {
            return Ok(pools);
        }
    }
}

impl Listed {
    fn new(listed: PoolListed, class: DataClass) -> Self {
        let PoolListed { pool, supply, home, available, held, consumed, returned } = listed;
        Self { pool, class, supply, home: home.to_string(), available, held, consumed, returned }
    }
}

impl fmt::Display for ListAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pools = if self.pools.len() == 1 { "pool" } else { "pools" };
        write!(f, "{} knows {} {pools}; the figures are its own", self.node, self.pools.len())?;
        if !self.pools.is_empty() {
            write!(
                f,
                "\n{:<24} {:<14} {:>12} {:>12} {:>12} {:>12} {:>12}  home",
                "pool", "class", "supply", "available", "held", "consumed", "returned"
            )?;
        }
        for Listed { pool, class, supply, home, available, held, consumed, returned } in &self.pools {
            write!(
                f,
                "\n{:<24} {:<14} {supply:>12} {available:>12} {held:>12} {consumed:>12} {returned:>12}  {home}",
                pool.as_str(),
                class.as_str()
            )?;
        }
        if !self.withheld.is_empty() {
            let classes: Vec<&str> = self.withheld.iter().map(DataClass::as_str).collect();
            write!(
                f,
                "\nnot listed, for the policy keeps them from you: pools of class {}",
                classes.join(", ")
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_list_says_whose_it_is_and_what_is_not_in_it() {
        let class = |name| DataClass::new(name).expect("valid");
        let listed = PoolListed {
            pool: PoolName::new("concert").expect("valid"),
            supply: 100,
            home: NodeId::new("us", "n1").expect("valid"),
            available: 30,
            held: 2,
            consumed: 5,
            returned: 1,
        };
        let pools = vec![Listed::new(listed, class("inventory"))];
        let answer = ListAnswer { node: "eu/n1".into(), pools, withheld: vec![class("patient")] };
        expect![[r#"
            eu/n1 knows 1 pool; the figures are its own
            pool                     class                supply    available         held     consumed     returned  home
            concert                  inventory               100           30            2            5            1  us/n1
            not listed, for the policy keeps them from you: pools of class patient"#]]
        .assert_eq(&answer.to_string());
        expect![[r#"{"node":"eu/n1","pools":[{"pool":"concert","class":"inventory","supply":100,"home":"us/n1","available":30,"held":2,"consumed":5,"returned":1}],"withheld":["patient"]}"#]]
        .assert_eq(&serde_json::to_string(&answer).expect("serialises"));
    }
}
