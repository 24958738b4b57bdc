//! `rhumb pool create`, `show`, `attest`; `list`, `audit` and `advise` have files of their own.

use std::collections::BTreeMap;
use std::fmt;

use clap::{Args, Subcommand, ValueEnum};
use rhumb_actors::escrow::messages::{
    AttestPool, CreatePool, DebtFigures, Durability, Figures, PoolCreated, PoolView, Reconciled, Refusal,
    Reserve, ShowPool, Standing,
};
use rhumb_core::limits::MAX_SUPPLY;
use rhumb_core::{DataClass, NodeId, PoolName, Region};
use serde::Serialize;

use super::advise::Advise;
use super::args::{RegionWeight, ReservePart, number, whole};
use super::audit::Audit;
use super::connect::{Connect, ask, knows, nodes_from};
use super::output::{Done, Failure, Output};
use super::pool_list::List;
use crate::client::MeshClient;
use crate::mesh::status::{AskStatus, NodeStatus};

/// Pools of units for sale.
#[derive(Debug, Subcommand)]
pub enum Pool {
    /// Create a pool: mint its units and give each region its share.
    Create(Create),
    /// List the pools that a region knows.
    List(List),
    /// Show one region's view of a pool, and how old its parts are.
    Show(Show),
    /// Read the rows of all nodes at rest, and check that not one unit is sold twice.
    Audit(Audit),
    /// Say what a node on a restored disk had sold, so that it may sell again.
    Attest(Attest),
    /// Say how many units a node should have, by a rate of requests and a risk. It needs no mesh.
    Advise(Advise),
}

impl Pool {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Self::Create(create) => create.run(output).await,
            Self::List(list) => list.run(output).await,
            Self::Show(show) => show.run(output).await,
            Self::Audit(audit) => audit.run(output).await,
            Self::Attest(attest) => attest.run(output).await,
            Self::Advise(advise) => advise.run(output).await,
        }
    }
}

/// Create a pool.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb pool create concert --supply 10000 --weights us-east=50,eu-central=30,ap-southeast=20\n  rhumb pool create fair --supply 500 --debt 10 --reserve us-east=20% --per-customer 4\n\nThe same pool again is the same answer; another under the same name is refused."
)]
pub struct Create {
    /// Its name.
    name: PoolName,
    /// Units to mint.
    #[arg(long, value_parser = number::<u64>(1..=MAX_SUPPLY))]
    supply: u64,
    /// The regions' weights in the first split; equal unless given.
    #[arg(long, value_name = "REGION=WEIGHT,…", value_delimiter = ',')]
    weights: Vec<RegionWeight>,
    /// The class of its data, which the policy must name.
    #[arg(long, default_value = "inventory")]
    class: DataClass,
    /// Units that may be sold beyond the supply, where none is left or to be had.
    #[arg(long, value_name = "UNITS", default_value_t = 0, value_parser = number::<u64>(0..=MAX_SUPPLY))]
    debt: u64,
    /// A part of the supply that one node keeps for the others and does not sell itself.
    #[arg(long, value_name = "REGION[/NODE]=UNITS|SHARE%")]
    reserve: Option<ReservePart>,
    /// The most that one customer may hold and have bought; holds must then say for whom they are.
    #[arg(long, value_name = "UNITS", value_parser = number::<u64>(1..=MAX_SUPPLY))]
    per_customer: Option<u64>,
    /// Where its rows are safe before anything of it is acknowledged: on the disk of the node that sells, or on a
    /// majority of three nodes, so that others sell on when one is lost with its disk.
    #[arg(long, default_value = "local")]
    durability: Safe,
    #[command(flatten)]
    connect: Connect,
}

/// Where a pool's rows are safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Safe {
    /// On the disk of the node that wrote them.
    Local,
    /// On a majority of the replicas of a range.
    Quorum,
}

#[derive(Debug, Serialize)]
struct CreateAnswer {
    pool: PoolName,
    class: DataClass,
    supply: u64,
    debt: u64,
    reserve: Option<ReserveAnswer>,
    per_customer: Option<u64>,
    durability: &'static str,
    home: String,
    shares: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct ReserveAnswer {
    node: String,
    units: u64,
}

fn reserve_answer(reserve: Option<&Reserve>) -> Option<ReserveAnswer> {
    reserve.map(|reserve| ReserveAnswer { node: reserve.node.to_string(), units: reserve.units })
}

/// The node that is to hold the reserve, among those of the mesh. A region with several must say which.
fn reserve_of(part: &ReservePart, supply: u64, mesh: &[NodeId]) -> Result<Reserve, Failure> {
    let units = part.part.of(supply);
    let told = |nodes: &[&NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let here: Vec<&NodeId> = mesh.iter().filter(|node| node.region == part.region).collect();
    match (&part.node, &here[..]) {
        (Some(node), _) if mesh.contains(node) => Ok(Reserve { node: node.clone(), units }),
        (Some(node), _) => {
            let all = told(&mesh.iter().collect::<Vec<_>>());
            Err(Failure::Usage(format!("--reserve: the mesh has no node {node}; it has {all}")))
        }
        (None, []) => {
            let (region, all) = (&part.region, told(&mesh.iter().collect::<Vec<_>>()));
            Err(Failure::Usage(format!("--reserve: the mesh has no node in region {region}; it has {all}")))
        }
        (None, [node]) => Ok(Reserve { node: NodeId::clone(node), units }),
        (None, nodes) => {
            let (region, nodes) = (&part.region, told(nodes));
            Err(Failure::Usage(format!("--reserve: region {region} has several nodes; say which: {nodes}")))
        }
    }
}

/// Every node of the mesh, as the first of these that answers has them: a command needs no address of a
/// node that it only names.
async fn founding(client: &MeshClient, nodes: &[NodeId]) -> Result<Vec<NodeId>, Failure> {
    let asked = ask(client, nodes, |_| AskStatus { mesh: false, within_ms: 0 }).await;
    let status: NodeStatus = serde_json::from_str(&asked.answer?).map_err(Failure::local)?;
    let named = status.links.iter().map(|link| &link.node).chain([&status.node]);
    let mut mesh =
        named.map(|node| node.parse()).collect::<Result<Vec<NodeId>, _>>().map_err(Failure::local)?;
    mesh.sort();
    Ok(mesh)
}

impl Create {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let mut weights = BTreeMap::new();
        for RegionWeight(region, weight) in &self.weights {
            if weights.insert(region.clone(), *weight).is_some() {
                return Err(Failure::Usage(format!("region {region} has two weights; give one")));
            }
        }
        let client = self.connect.operator().await?;
        let nodes = nodes_from(client.directory(), |_| true);
        let reserve = match &self.reserve {
            Some(part) => Some(reserve_of(part, self.supply, &founding(&client, &nodes).await?)?),
            None => None,
        };
        let message = CreatePool {
            name: self.name,
            class: self.class,
            supply: self.supply,
            weights,
            debt: self.debt,
            reserve,
            per_customer: self.per_customer,
            durability: match self.durability {
                Safe::Local => Durability::Local,
                Safe::Quorum => Durability::Quorum,
            },
        };
        let asked = ask(&client, &nodes, |_| message.clone()).await;
        client.close().await;
        let answered = asked.answer?;
        if let Err(Refusal::PoolExists(spec)) = &answered {
            match &spec.differences(&message)[..] {
                [] => output.note("its terms are these: only its weights were given in other words"),
                differs => output.note(differs.join("\n")),
            }
        }
        let answer = CreateAnswer::of(answered?);
        output.answer(&answer, &answer);
        Ok(Done::Well)
    }
}

impl CreateAnswer {
    fn of(created: PoolCreated) -> Self {
        let PoolCreated { spec, home, shares } = created;
        Self {
            reserve: reserve_answer(spec.reserve.as_ref()),
            pool: spec.name,
            class: spec.class,
            supply: spec.supply,
            debt: spec.debt,
            per_customer: spec.per_customer,
            durability: spec.durability.name(),
            home: home.to_string(),
            shares: shares.iter().map(|(node, units)| (node.to_string(), *units)).collect(),
        }
    }
}

impl fmt::Display for CreateAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, class, supply, home, .. } = self;
        let shares: Vec<String> = self.shares.iter().map(|(node, units)| format!("{node} {units}")).collect();
        let shares = shares.join(", ");
        write!(f, "pool {pool}: {supply} units of class {class} minted at {home}, split: {shares}")?;
        if self.debt > 0 {
            write!(f, "\ndebt: up to {} units beyond the supply", self.debt)?;
        }
        if let Some(ReserveAnswer { node, units }) = &self.reserve {
            write!(f, "\nreserve: {units} units at {node}, for the other nodes")?;
        }
        if let Some(limit) = self.per_customer {
            write!(f, "\nlimit: {limit} units a customer")?;
        }
        if self.durability != Durability::Local.name() {
            write!(
                f,
                "\ndurability: {}, all rows are on a majority of three nodes before they are acknowledged",
                self.durability
            )?;
        }
        Ok(())
    }
}

/// Show one region's view of a pool.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb pool show concert --region eu-central\n\nThe node's own figures are exact; those of others are as old as it says. For exact sums: rhumb pool audit."
)]
pub struct Show {
    /// Which.
    name: PoolName,
    /// Whose view; any region's unless given.
    #[arg(long)]
    region: Option<Region>,
    #[command(flatten)]
    connect: Connect,
}

/// One node's figures in a view.
#[derive(Debug, Serialize)]
struct NodeFigures {
    node: String,
    available: u64,
    held: u64,
    consumed: u64,
    returned: u64,
    overdrawn: u64,
    debt_available: u64,
    /// 0 for the node's own figures.
    age_ms: u64,
}

#[derive(Debug, Serialize)]
struct ShowAnswer {
    pool: PoolName,
    class: DataClass,
    supply: u64,
    home: String,
    node: String,
    standing: &'static str,
    tail: bool,
    debt: u64,
    reserve: Option<ReserveLeft>,
    per_customer: Option<u64>,
    /// On debt too.
    sold: u64,
    /// Of those, on debt.
    overdrawn: u64,
    available: u64,
    held: u64,
    consumed: u64,
    returned: u64,
    /// What the home found when it last added up all rows; none in another node's view.
    reconciled: Option<ReconciledFigures>,
    nodes: Vec<NodeFigures>,
}

/// A pool's reserve, as the node that was asked sees it.
#[derive(Debug, Serialize)]
struct ReserveLeft {
    node: String,
    /// As the pool was created.
    units: u64,
    /// Units of it that were not granted yet, by its holder's last word; none if it has been silent.
    left: Option<u64>,
    /// Little is left of the pool: its home sells the rest, and nothing is reserved any more.
    void: bool,
}

impl ReserveLeft {
    fn new(view: &PoolView) -> Option<Self> {
        let Reserve { node, units } = view.spec.reserve.as_ref()?;
        let heard = || view.others.get(node).map(|(figures, _)| figures.reserved);
        let left = if *node == view.node { Some(view.row.reserved) } else { heard() };
        let left = if view.tail { Some(0) } else { left };
        Some(Self { node: node.to_string(), units: *units, left, void: view.tail })
    }
}

impl fmt::Display for ReserveLeft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reserve: {} units at {}, for the other nodes", self.units, self.node)?;
        match (self.void, self.left) {
            (true, _) => f.write_str(": void in tail mode, the pool's home sells what is left"),
            (false, Some(left)) => write!(f, ": {left} left"),
            (false, None) => f.write_str(": not heard how many are left"),
        }
    }
}

/// What a reconciliation found.
#[derive(Debug, Serialize)]
struct ReconciledFigures {
    exact: bool,
    drift: Option<i64>,
    violations: Vec<String>,
    missing: Vec<String>,
    readings: u32,
    age_ms: u64,
}

impl Show {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.client().await?;
        let nodes = match &self.region {
            Some(region) => client.directory().nodes_in(Some(region))?,
            None => nodes_from(client.directory(), |_| true),
        };
        let asked = ask(&client, &nodes, |_| ShowPool { pool: self.name.clone() }).await;
        client.close().await;
        let answer = ShowAnswer::new(asked.answer??);
        output.answer(&answer, &answer);
        Ok(Done::Well)
    }
}

impl ShowAnswer {
    fn new(view: PoolView) -> Self {
        let reserve = ReserveLeft::new(&view);
        let row = &view.row;
        let own = Figures {
            consumed: row.consumed,
            available: row.available,
            held: row.held,
            demand: 0,
            returned: row.returned,
            reserved: row.reserved,
            debt: DebtFigures {
                consumed: row.debt.consumed,
                returned: row.debt.returned,
                available: row.debt.available,
                held: row.debt.held,
            },
        };
        let figures = |(node, figures, age_ms): (NodeId, Figures, u64)| NodeFigures {
            node: node.to_string(),
            available: figures.available,
            held: figures.held + figures.debt.held,
            consumed: figures.consumed + figures.debt.consumed,
            returned: figures.returned + figures.debt.returned,
            overdrawn: figures.debt.consumed.saturating_sub(figures.debt.returned),
            debt_available: figures.debt.available,
            age_ms,
        };
        let others =
            view.others.into_iter().map(|(node, (figures, age))| (node, figures, age.as_millis() as u64));
        let nodes: Vec<NodeFigures> =
            std::iter::once((view.node.clone(), own, 0)).chain(others).map(figures).collect();
        let sum = |of: fn(&NodeFigures) -> u64| nodes.iter().map(of).sum();
        let (consumed, returned): (u64, u64) = (sum(|n| n.consumed), sum(|n| n.returned));
        Self {
            pool: view.spec.name,
            class: view.spec.class,
            supply: view.spec.supply,
            home: view.home.to_string(),
            node: view.node.to_string(),
            standing: standing(&view.row.standing),
            tail: view.tail,
            debt: view.spec.debt,
            reserve,
            per_customer: view.spec.per_customer,
            sold: consumed.saturating_sub(returned),
            overdrawn: sum(|n| n.overdrawn),
            returned,
            available: sum(|n| n.available),
            held: sum(|n| n.held),
            consumed,
            reconciled: view.reconciled.map(ReconciledFigures::new),
            nodes,
        }
    }
}

impl ReconciledFigures {
    fn new(found: Reconciled) -> Self {
        Self {
            exact: found.exact,
            drift: found.drift,
            violations: found.violations,
            missing: found.missing.iter().map(ToString::to_string).collect(),
            readings: found.readings,
            age_ms: found.age.as_millis() as u64,
        }
    }
}

impl fmt::Display for ReconciledFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reconciled {} ms ago: ", self.age_ms)?;
        match self.drift {
            Some(0) => f.write_str("all rows add up to what was minted")?,
            Some(drift) => write!(f, "ALARM, a drift of {drift} units")?,
            None if !self.missing.is_empty() => {
                write!(f, "not exact, no row of {}", self.missing.join(", "))?
            }
            None => write!(f, "not exact, the pool did not rest in {} readings", self.readings)?,
        }
        self.violations.iter().try_for_each(|violation| write!(f, "\nALARM: {violation}"))
    }
}

impl fmt::Display for ShowAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pool {}: {} units of class {}, home {}", self.pool, self.supply, self.class, self.home)?;
        self.terms(f)?;
        writeln!(
            f,
            "seen by {} ({}{}): {} sold, {} held, {} available, {} returned",
            self.node,
            self.standing,
            if self.tail { ", tail mode" } else { "" },
            self.sold,
            self.held,
            self.available,
            self.returned
        )?;
        write!(
            f,
            "{:<24} {:>12} {:>12} {:>12} {:>12} {:>10}",
            "node", "available", "held", "consumed", "returned", "age"
        )?;
        for node in &self.nodes {
            let age = if node.node == self.node { "exact".to_owned() } else { format!("{} ms", node.age_ms) };
            write!(
                f,
                "\n{:<24} {:>12} {:>12} {:>12} {:>12} {age:>10}",
                node.node, node.available, node.held, node.consumed, node.returned
            )?;
        }
        match &self.reconciled {
            Some(found) => write!(f, "\n{found}"),
            None => Ok(()),
        }
    }
}

impl ShowAnswer {
    /// Debt, reserve and limit, where the pool has them.
    fn terms(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.debt > 0 {
            writeln!(f, "debt: {} of {} sold beyond the supply", self.overdrawn, self.debt)?;
        }
        if let Some(reserve) = &self.reserve {
            writeln!(f, "{reserve}")?;
        }
        match self.per_customer {
            Some(limit) => writeln!(f, "limit: {limit} units a customer"),
            None => Ok(()),
        }
    }
}

pub(super) fn standing(standing: &Standing) -> &'static str {
    match standing {
        Standing::Unproven => "unproven",
        Standing::Proven => "proven",
        Standing::Restored => "restored",
    }
}

/// Attest a pool on a restored node.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb pool attest concert --node us-east/n1 --sold 1234\n\nCount what the node had sold and not got back from receipts, never from its restored disk: what you leave out may be sold twice."
)]
pub struct Attest {
    /// Which.
    name: PoolName,
    /// The restored node.
    #[arg(long, value_name = "REGION/NODE")]
    node: NodeId,
    /// Units it had sold of this pool and not got back, by receipts.
    #[arg(long, value_parser = whole::<u64>)]
    sold: u64,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Serialize)]
struct AttestAnswer {
    pool: PoolName,
    node: String,
    standing: &'static str,
    available: u64,
    held: u64,
    consumed: u64,
}

impl Attest {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.operator().await?;
        knows(&client, &self.node)?;
        let message = AttestPool { pool: self.name, node: self.node.clone(), sold: self.sold };
        let asked = ask(&client, std::slice::from_ref(&self.node), |_| message.clone()).await;
        client.close().await;
        let attested = asked.answer??;
        let answer = AttestAnswer {
            pool: attested.pool,
            node: self.node.to_string(),
            standing: standing(&attested.row.standing),
            available: attested.row.available,
            held: attested.row.held,
            consumed: attested.row.consumed,
        };
        let text = format!(
            "{} is {} and may sell {} of {}",
            answer.node, answer.standing, answer.available, answer.pool
        );
        output.answer(&answer, text);
        Ok(Done::Well)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::expect;
    use rhumb_actors::escrow::messages::{PoolSpec, Row};
    use rhumb_core::HybridTime;

    use super::*;

    fn node(region: &str) -> NodeId {
        NodeId::new(region, "n1").expect("valid")
    }

    fn spec() -> PoolSpec {
        PoolSpec {
            name: PoolName::new("concert").expect("valid"),
            class: DataClass::new("inventory").expect("valid"),
            supply: 100,
            weights: BTreeMap::new(),
            created: HybridTime::ZERO,
            debt: 10,
            reserve: Some(Reserve { node: node("us"), units: 20 }),
            per_customer: Some(4),
            durability: Durability::Local,
        }
    }

    #[test]
    fn a_new_pool_is_told_with_its_terms() {
        let shares = BTreeMap::from([(node("eu"), 40), (node("us"), 60)]);
        let created = PoolCreated { spec: spec(), home: node("us"), shares };
        expect![[r#"
            pool concert: 100 units of class inventory minted at us/n1, split: eu/n1 40, us/n1 60
            debt: up to 10 units beyond the supply
            reserve: 20 units at us/n1, for the other nodes
            limit: 4 units a customer"#]]
        .assert_eq(&CreateAnswer::of(created.clone()).to_string());
        let plain = PoolSpec { debt: 0, reserve: None, per_customer: None, ..spec() };
        expect!["pool concert: 100 units of class inventory minted at us/n1, split: eu/n1 40, us/n1 60"]
            .assert_eq(&CreateAnswer::of(PoolCreated { spec: plain, ..created }).to_string());
    }

    #[test]
    fn a_view_says_whose_it_is_and_how_old_its_parts_are() {
        let figures =
            Figures { reserved: 15, consumed: 3, available: 40, held: 7, demand: 9, ..Figures::default() };
        let view = |tail| PoolView {
            spec: spec(),
            home: node("us"),
            node: node("eu"),
            row: Row {
                consumed: 2,
                available: 45,
                held: 3,
                returned: 1,
                standing: Standing::Proven,
                ..Row::default()
            },
            others: BTreeMap::from([(node("us"), (figures, Duration::from_millis(120)))]),
            tail,
            reconciled: Some(Reconciled {
                exact: true,
                drift: Some(-2),
                readings: 2,
                ..Reconciled::default()
            }),
        };
        let answer = ShowAnswer::new(view(false));
        expect![[r#"
            pool concert: 100 units of class inventory, home us/n1
            debt: 0 of 10 sold beyond the supply
            reserve: 20 units at us/n1, for the other nodes: 15 left
            limit: 4 units a customer
            seen by eu/n1 (proven): 4 sold, 10 held, 85 available, 1 returned
            node                        available         held     consumed     returned        age
            eu/n1                              45            3            2            1      exact
            us/n1                              40            7            3            0     120 ms
            reconciled 0 ms ago: ALARM, a drift of -2 units"#]]
        .assert_eq(&answer.to_string());
        expect![[r#"{"pool":"concert","class":"inventory","supply":100,"home":"us/n1","node":"eu/n1","standing":"proven","tail":false,"debt":10,"reserve":{"node":"us/n1","units":20,"left":15,"void":false},"per_customer":4,"sold":4,"overdrawn":0,"available":85,"held":10,"consumed":5,"returned":1,"reconciled":{"exact":true,"drift":-2,"violations":[],"missing":[],"readings":2,"age_ms":0},"nodes":[{"node":"eu/n1","available":45,"held":3,"consumed":2,"returned":1,"overdrawn":0,"debt_available":0,"age_ms":0},{"node":"us/n1","available":40,"held":7,"consumed":3,"returned":0,"overdrawn":0,"debt_available":0,"age_ms":120}]}"#]]
        .assert_eq(&serde_json::to_string(&answer).expect("serialises"));
        let void = ShowAnswer::new(view(true)).to_string();
        let line = void.lines().find(|line| line.starts_with("reserve"));
        let want = "reserve: 20 units at us/n1, for the other nodes: void in tail mode, the pool's home sells what is left";
        assert_eq!(line, Some(want));
    }
    #[test]
    fn a_reserve_needs_the_name_of_its_node_and_not_its_address() {
        let n2 = NodeId::new("us", "n2").expect("valid");
        let told = |part: &str, mesh: &[NodeId]| {
            let part: ReservePart = part.parse().expect("valid");
            match reserve_of(&part, 100, mesh) {
                Ok(reserve) => format!("{} at {}", reserve.units, reserve.node),
                Err(Failure::Usage(why)) => why,
                Err(other) => format!("{other:?}"),
            }
        };
        let mesh = [node("eu"), node("us"), n2];
        assert_eq!(told("eu=20%", &mesh), "20 at eu/n1");
        assert_eq!(told("us/n2=7", &mesh), "7 at us/n2");
        assert_eq!(told("us=7", &mesh), "--reserve: region us has several nodes; say which: us/n1, us/n2");
        let none = "--reserve: the mesh has no node in region moon; it has eu/n1, us/n1, us/n2";
        assert_eq!(told("moon=7", &mesh), none);
        assert_eq!(
            told("eu/n9=7", &mesh),
            "--reserve: the mesh has no node eu/n9; it has eu/n1, us/n1, us/n2"
        );
    }
}
