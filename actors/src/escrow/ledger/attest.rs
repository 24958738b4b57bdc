//! An operator's word takes the place of what a restored disk says.

use std::collections::BTreeMap;

use rhumb_core::{HybridTime, Incarnation, NodeId};
use rhumb_storage::Batch;

use super::{Ledger, rights};
use crate::escrow::messages::{Disowned, Refusal};
use crate::escrow::records::{CountsMore, CountsRow, LinkRow, Right, Stage, Sums};

/// The word, and what goes with it.
#[derive(Debug)]
pub(crate) struct Word<'a> {
    /// Units the node had sold and not got back.
    pub(crate) sold: u64,
    /// The restoration since which the row is whole by it.
    pub(crate) floor: Option<Incarnation>,
    /// Whether the node is the pool's home, and minted it.
    pub(crate) is_home: bool,
    /// What it granted when it minted the pool, if it is the home.
    pub(crate) split: &'a BTreeMap<NodeId, u64>,
    /// What peers know of the node. They have refused its earlier lives before they counted, so no
    /// older grant can still arrive.
    pub(crate) peers: &'a BTreeMap<NodeId, Disowned>,
}

impl Ledger {
    /// Takes the operator's word and the peers' counts in place of what the disk says. Of units sold,
    /// only those that the node's rights can not explain stand on debt.
    pub(crate) fn attest(
        &mut self,
        word: &Word<'_>,
        now: HybridTime,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let known = [Right::Unit, Right::Debt].map(|right| self.known_to_all(right, word));
        let least: u64 = known.iter().map(|sums| sums.consumed.saturating_sub(sums.returned)).sum();
        let sold = word.sold;
        let links = self.links_by(word.peers);
        let [units, debt] = known;
        let [own, owed] = [(&units, Right::Unit), (&debt, Right::Debt)]
            .map(|(sums, right)| u64::try_from(rights(sums, &links, right)).unwrap_or(0));
        let overdrawn = sold.saturating_sub(own);
        let most = own + owed;
        if sold < least || overdrawn > owed {
            return Err(Refusal::WrongAttestation { sold, least, most });
        }
        let from_reserve = self.counts.more.from_reserve.saturating_add(self.granted_since(&links, word));
        let debt = standing_at(debt, overdrawn);
        self.counts = CountsRow {
            units: standing_at(units, sold - overdrawn),
            cleared: word.floor,
            attested: Some(sold),
            more: CountsMore { debt, from_reserve },
        };
        for number in self.holds.open() {
            self.end(number, Stage::Voided, now, batch);
        }
        self.links = links;
        self.changed();
        self.write(batch);
        Ok(())
    }

    /// The highest counters that this disk or any peer knows.
    fn known_to_all(&self, right: Right, word: &Word<'_>) -> Sums {
        let mut sums = *self.counts.of(right);
        for said in word.peers.values() {
            let (consumed, returned) = match right {
                Right::Unit => (said.consumed, said.returned),
                Right::Debt => (said.debt.consumed, said.debt.returned),
            };
            sums.consumed = sums.consumed.max(consumed);
            sums.returned = sums.returned.max(returned);
        }
        if word.is_home {
            sums.minted = match right {
                Right::Unit => self.pool.supply,
                Right::Debt => self.pool.debt_ceiling,
            };
        }
        sums
    }

    /// Units that the lost disk granted after the copy was made, as far as anybody has accepted them. If
    /// this node holds the pool's reserve, they came out of it: nobody knows otherwise.
    fn granted_since(&self, links: &BTreeMap<NodeId, LinkRow>, word: &Word<'_>) -> u64 {
        let since = |(node, link): (&NodeId, &LinkRow)| {
            let split = word.split.get(node).copied().unwrap_or(0);
            link.units.granted.saturating_sub(self.link(node).units.granted.max(split))
        };
        links.iter().map(since).sum()
    }

    fn links_by(&self, peers: &BTreeMap<NodeId, Disowned>) -> BTreeMap<NodeId, LinkRow> {
        let mut links = self.links.clone();
        for (node, said) in peers {
            let Some(link) = links.get_mut(node) else { continue };
            for (flow, granted, accepted) in [
                (&mut link.units, said.granted, said.accepted),
                (&mut link.more, said.debt.granted, said.debt.accepted),
            ] {
                flow.granted = flow.granted.max(accepted);
                flow.accepted = flow.accepted.max(granted);
            }
        }
        links
    }
}

/// The counters with so many units sold and not given back: neither of the two falls.
fn standing_at(sums: Sums, sold: u64) -> Sums {
    let consumed = sums.consumed.max(sold + sums.returned);
    Sums { consumed, returned: consumed - sold, ..sums }
}
