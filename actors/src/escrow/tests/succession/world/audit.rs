//! What must be true of the rows in the range, whoever wrote them.

use std::collections::BTreeMap;

use rhumb_core::NodeId;

use super::{SUPPLY, World};
use crate::escrow::messages::HoldId;
use crate::escrow::records::{Image, PoolImage, Right, Stage};

impl World {
    fn images(&self) -> Result<BTreeMap<NodeId, PoolImage>, String> {
        let mut images = BTreeMap::new();
        for node in &self.nodes {
            let image = Image::read(self.range.rows(node).into_iter()).map_err(|error| error.to_string())?;
            let mut pools = image.pools;
            images.insert(node.clone(), pools.remove(&self.pool).unwrap_or_default());
        }
        Ok(images)
    }

    /// A hold that was just acknowledged, or whose sale was, is in the range.
    pub(super) fn is_held(&self, hold: &HoldId) -> Result<(), String> {
        let images = self.images()?;
        self.stands(hold, &images)
    }

    fn stands(&self, hold: &HoldId, images: &BTreeMap<NodeId, PoolImage>) -> Result<(), String> {
        let told = &self.told[hold];
        let row = images[&hold.owner].holds.get(&(hold.incarnation, hold.number));
        let row = row.ok_or_else(|| format!("the acknowledged hold {hold} is lost"))?;
        if row.qty != told.qty || row.more.secret != hold.secret {
            return Err(format!("the acknowledged hold {hold} is another one"));
        }
        match row.stage {
            Stage::Committed if told.sold || told.confirming => Ok(()),
            _ if told.sold => Err(format!("the acknowledged sale {hold} is undone: {:?}", row.stage)),
            Stage::Held | Stage::Expired => Ok(()),
            Stage::Released if told.releasing => Ok(()),
            stage => Err(format!("the hold {hold} is {stage:?}, which nobody asked for")),
        }
    }

    pub(super) fn audit(&self, end: bool) -> Result<(), String> {
        let images = self.images()?;
        let (mut minted, mut all, mut sold) = (0_i128, 0_i128, 0_i128);
        for (node, image) in &images {
            let sums = image.counts.of(Right::Unit);
            let held: u64 =
                image.holds.values().filter(|row| row.stage == Stage::Held).map(|row| row.qty).sum();
            let mut available =
                i128::from(sums.minted) - i128::from(sums.consumed) + i128::from(sums.returned);
            available -= i128::from(held);
            let mut on_the_way = 0;
            for (peer, link) in &image.links {
                available += i128::from(link.units.accepted) - i128::from(link.units.granted);
                let there = images[peer].links.get(node).map_or(0, |link| link.units.accepted);
                let granted = link.units.granted;
                if there > granted {
                    return Err(format!("{peer} has accepted {there} of {node}, which granted {granted}"));
                }
                on_the_way += i128::from(granted - there);
            }
            if available < 0 {
                return Err(format!("{node} has {available} units"));
            }
            minted += i128::from(sums.minted);
            let gone = i128::from(sums.consumed) - i128::from(sums.returned);
            sold += gone;
            all += available + i128::from(held) + gone + on_the_way;
        }
        if minted > i128::from(SUPPLY) || all != minted {
            return Err(format!("{minted} were minted of {SUPPLY}, and there are {all}"));
        }
        for hold in self.told.keys() {
            self.stands(hold, &images)?;
        }
        let known: u64 = self.told.values().filter(|told| told.sold).map(|told| told.qty).sum();
        if i128::from(known) > sold {
            return Err(format!("{known} are known to be sold, and the rows say {sold}"));
        }
        if end && sold != i128::from(SUPPLY) {
            let open: Vec<_> = self
                .ledgers
                .iter()
                .map(|((n, o), (_, l))| {
                    let row = l.book.as_ref().and_then(|book| book.row(&self.pool));
                    let row = row.map(|row| (row.available, row.held, row.granted, row.accepted));
                    (&self.nodes[*n], &self.nodes[*o], l.busy, row)
                })
                .collect();
            return Err(format!("when all was well again {sold} of {SUPPLY} were sold: {open:?}"));
        }
        Ok(())
    }
}
