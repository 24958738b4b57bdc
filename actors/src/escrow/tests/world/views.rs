//! What a story is shown of a node.

use super::*;

impl World {
    /// A node's last word comes to another with a figure that no pool can have. What becomes of it.
    pub(super) fn lie(&mut self, from: &str, to: &str, figure: &str) -> String {
        let (from, to) = (node_id(from), node_id(to));
        let Some(PeerMessage::Level(mut level)) = self.said.get(&(from.clone(), to.clone())).cloned() else {
            panic!("{from} has not spoken to {to}");
        };
        let figures = &mut level.figures;
        let figure = match figure {
            "consumed" => &mut figures.consumed,
            "returned" => &mut figures.returned,
            "available" => &mut figures.available,
            "held" => &mut figures.held,
            "demand" => &mut figures.demand,
            "reserved" => &mut figures.reserved,
            "debt" => &mut figures.debt.consumed,
            other => panic!("no figure {other}"),
        };
        *figure = u64::MAX;
        let ignored = |world: &Self| world.nodes[&to].life.as_ref().expect("it runs").book.ignored();
        let before = ignored(self);
        self.arrive(&to, Parcel::Peer(from, PeerMessage::Level(level)));
        if ignored(self) > before { "ignored" } else { "heard" }.to_owned()
    }

    pub(super) fn standing(&mut self, name: &str) -> String {
        let life = self.node(name).life.as_ref().expect("the node runs");
        said(&life.book.standing()).to_owned()
    }

    /// What a reader of the node's row of the pool is told.
    pub(super) fn read_row(&mut self, name: &str) -> String {
        let pool = self.pools["concert"].clone();
        let life = self.node(name).life.as_ref().expect("the node runs");
        match life.book.read_row(pool) {
            Ok(row) => format!("{} row", said(&row.standing)),
            Err(refusal) => refusal.code().to_owned(),
        }
    }

    pub(super) fn show(&mut self, args: &[&str]) -> String {
        let pool = self.pools[args.get(1).copied().unwrap_or("concert")].clone();
        let life = self.node(args[0]).life.as_ref().expect("the node runs");
        let Some(row) = life.book.row(&pool) else { return "unknown".to_owned() };
        let stranded = life.book.stranded(&pool);
        let Row { minted, consumed, returned, held, available, reserved, tallies, .. } = row.clone();
        let DebtRow { available: debt, consumed: drawn, returned: repaid, held: owed, .. } = row.debt;
        let column = |what: &str, of: &BTreeMap<NodeId, u64>| {
            of.iter().map(|(node, n)| format!(" {what}-{}={n}", node.region)).collect::<String>()
        };
        format!(
            "available={available} held={held} sold={consumed} minted={minted} returned={returned} \
             reserved={reserved} debt={debt} drawn={drawn} repaid={repaid} owed={owed} expired={} false={} \
             forwarded={} stranded={}+{} refused={} {} {} {}",
            tallies.expired,
            tallies.false_refusals,
            tallies.forwarded,
            stranded.here,
            stranded.away,
            tallies.refused.values().sum::<u64>(),
            said(&row.standing),
            column("granted", &row.granted),
            column("accepted", &row.accepted),
        )
    }

    /// What the last reconciliation at a node found.
    pub(super) fn reconciled(&mut self, name: &str) -> String {
        let (pool, now) = (self.pools["concert"].clone(), self.now);
        let life = self.node(name).life.as_ref().expect("the node runs");
        let (last, counts) = life.book.reconciled(&pool, now);
        let Some(last) = last else { return "never".to_owned() };
        let missing: String = last.missing.iter().map(|node| format!(" {}", node.region)).collect();
        let drift = last.drift.map_or_else(|| "unknown".to_owned(), |drift| drift.to_string());
        let Reconciliations { exact, torn, incomplete, alarms } = counts;
        format!(
            "drift={drift} readings={} missing={missing} exact={exact} torn={torn} incomplete={incomplete} alarms={alarms}",
            last.readings
        )
    }

    /// What a node counted of the levelling.
    pub(super) fn moved(&mut self, name: &str) -> String {
        let pool = self.pools["concert"].clone();
        let life = self.node(name).life.as_ref().expect("the node runs");
        let levelled = life.book.levelled(&pool);
        let moved = levelled.moved.iter().map(|((direction, cause), moved)| {
            format!("{}-{}={}/{} ", direction.name(), cause.name(), moved.moves, moved.units)
        });
        let waits = levelled.waits.sum.as_millis();
        format!(
            "{}transit={} waits={}/{waits}ms",
            moved.collect::<String>(),
            levelled.in_transit,
            levelled.waits.number()
        )
    }

    pub(super) fn view(&mut self, args: &[&str]) -> String {
        let pool = self.pools["concert"].clone();
        self.ask(args[0], "view", Request::Show(ShowPool { pool }), Duration::from_secs(5));
        self.settle();
        self.events.pop().unwrap_or_default()
    }

    pub(super) fn stage(&mut self, label: &str) -> String {
        let hold = self.held[label].clone();
        let life = self.nodes[&hold.owner].life.as_ref().expect("the owner runs");
        life.book.stage(&hold).map_or("forgotten".to_owned(), |stage| format!("{stage:?}").to_lowercase())
    }

    // ---- machinery -----------------------------------------------------------------------------
}
