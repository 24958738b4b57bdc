//! The ranges in which pools with `durability=quorum` keep their rows: a keyspace a pool, which is nobody else's.
//!
//! * It decides: what such a keyspace is called, and that only nodes read, write or change it.
//! * It never does: split one, for what a ledger writes is one batch; or say who writes a ledger (its head does).

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rhumb_actors::escrow::tenure::{Came, Head, If, Want, key_of, rows_of};
use rhumb_actors::failover::Owner;
use rhumb_actors::placement::messages::Placement;
use rhumb_actors::ranges::messages::{
    CreateKeyspace, KvAnswer, KvCondition, KvOp, KvRead, KvRefusal, KvRow, KvWrite, Lifetimes, MAX_ROWS,
    Needs,
};
use rhumb_core::{DataClass, Fault, NodeId, PoolName};

use super::Ranges;

/// Before the names of pools' keyspaces. No name that somebody gives has a `/` in it.
const POOLS: &str = "pool/";
/// Replicas of a pool's range.
const REPLICATION: u32 = 3;
/// For how long versions of rows are kept that were written over.
const RETENTION: Duration = Duration::from_secs(60);
/// How long one reading or writing of a ledger may take. What came of a write is looked at afterwards.
const WITHIN: Duration = Duration::from_secs(3);

/// The keyspace of a pool.
fn keyspace_of(pool: &PoolName) -> String {
    format!("{POOLS}{pool}")
}

/// Whether a keyspace is a pool's.
pub(super) fn is_of_pool(keyspace: &str) -> bool {
    keyspace.starts_with(POOLS)
}

/// Refuses whoever is no node what is a pool's.
pub(super) fn only_nodes(keyspace: &str, by_node: bool) -> Result<(), KvRefusal> {
    if by_node || !is_of_pool(keyspace) {
        return Ok(());
    }
    let why = format!(
        "keyspace {keyspace} is a pool's own: it is read and changed by `rhumb pool` and `rhumb hold`"
    );
    Err(KvRefusal::NotAllowed(why))
}

/// Why rows of a pool were not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::supervisor) enum Unread {
    /// It is refused, as often as it is asked for.
    Refused(String),
    /// They may be read in a moment.
    NotNow(String),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) | Self::NotNow(why) => f.write_str(why),
        }
    }
}

/// What came of reading rows of a pool.
fn as_read(answer: Result<Result<KvAnswer, KvRefusal>, Fault>) -> Result<KvAnswer, Unread> {
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(refusal)) if is_final(&refusal) => Err(Unread::Refused(refusal.to_string())),
        Ok(Err(refusal)) => Err(Unread::NotNow(refusal.to_string())),
        Err(fault) => Err(Unread::NotNow(fault.to_string())),
    }
}

/// Whether what is refused so is refused as often as it is asked for.
fn is_final(refusal: &KvRefusal) -> bool {
    use KvRefusal::{
        Condition, Erased, Exists, Invalid, NoSuchKeyspace, NotActive, NotAllowed, NotNow, Overloaded,
        StalenessBoundViolated, Time, Token, Unsound, WrongClass,
    };
    match refusal {
        Invalid(_) | NotAllowed(_) | NotActive(_) | WrongClass(_) | Unsound(_) | Erased | Exists { .. } => {
            true
        }
        // A node's catalog may be behind, another one may have written, and the rest passes.
        NoSuchKeyspace(_)
        | Condition { .. }
        | NotNow { .. }
        | Overloaded { .. }
        | Time(_)
        | Token(_)
        | StalenessBoundViolated { .. } => false,
    }
}

/// Who acts in whose place, as this node last read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::supervisor) enum Acts {
    This(NodeId),
    /// Nobody, until it is known who.
    Nobody,
}

impl Ranges {
    /// On the thread of ranges.
    pub(in crate::supervisor) fn spawn(
        &self,
        does: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        self.0.parts.runtime.spawn(does)
    }

    /// Whether values of a class say whom they are about.
    pub(in crate::supervisor) fn is_personal(&self, class: &DataClass) -> bool {
        super::subjects::is_personal(class)
    }

    /// Whether the fences were read lately, so that what begins now begins by them.
    pub(in crate::supervisor) fn permitted(&self) -> bool {
        self.0.parts.owners.permit().is_some()
    }

    /// Whether it has been read here which pools have a range, if only as it was some time ago.
    pub(in crate::supervisor) fn have_read_pools(&self) -> bool {
        self.0.catalog_read.load(Ordering::Relaxed)
    }

    /// Whether pools may have a range of which nothing has been read here: this disk is a new one, and others have a catalog, or too
    /// few of them say that they have none.
    pub(in crate::supervisor) async fn others_may_know_pools(&self, within: Duration) -> bool {
        !self.have_read_pools() && self.others_may_have_meta(within).await && !self.have_read_pools()
    }

    /// Whether all pools are known here that had a range when this node started.
    pub(in crate::supervisor) fn sees_all_pools(&self) -> bool {
        self.0.caught_up.load(Ordering::Relaxed)
    }

    /// The pools that have a range, each with its class.
    pub(in crate::supervisor) fn pools(&self) -> Vec<(PoolName, DataClass)> {
        let spaces = self.0.keyspaces.read();
        let one = |(name, space): (&String, &rhumb_actors::ranges::catalog::Keyspace)| {
            let pool = PoolName::new(name.strip_prefix(POOLS)?).ok()?;
            Some((pool, space.class.clone()))
        };
        spaces.iter().filter_map(one).collect()
    }

    /// Who acts as the first of these nodes, by the fences that were read last. With that alone nobody may act: whoever
    /// writes is judged by the head of what it writes.
    pub(in crate::supervisor) fn acts(&self, order: &[NodeId]) -> Acts {
        let table = self.0.parts.owners.last();
        match table.owner(order) {
            Owner::Acts(node, _) => Acts::This(node.clone()),
            // Nothing was read yet: who is asked has read more.
            Owner::Fenced(node) if table.is_empty() && *node != self.0.parts.me => Acts::This(node.clone()),
            Owner::Fenced(_) | Owner::None => Acts::Nobody,
        }
    }

    /// Creates the range of a pool.
    pub(in crate::supervisor) async fn create_pool(
        &self,
        pool: &PoolName,
        class: &DataClass,
        within: Duration,
    ) -> Result<Result<(), KvRefusal>, Fault> {
        let asked = CreateKeyspace {
            name: keyspace_of(pool),
            class: class.clone(),
            replication: REPLICATION,
            lifetimes: Lifetimes { retention: Some(RETENTION), ttl: None },
            placement: Placement::default(),
        };
        Ok(Box::pin(self.created(&asked, within)).await?.map(drop))
    }

    /// What a pool's row under this key says, as its leaseholder reads it.
    pub(in crate::supervisor) async fn pool_row(
        &self,
        (pool, class): (&PoolName, &DataClass),
        key: Vec<u8>,
    ) -> Result<Option<Vec<u8>>, Unread> {
        let answer = self.pool_read((pool, class), key, None).await?;
        Ok(answer.rows.into_iter().next().map(|row| row.value))
    }

    /// Does what a ledger's tenure wants.
    pub(in crate::supervisor) async fn ledger(
        &self,
        of: (&PoolName, &DataClass),
        owner: &NodeId,
        want: Want,
    ) -> Result<Came, String> {
        match want {
            Want::Look => {
                let answer = match self.pool_read(of, key_of(owner, b""), None).await {
                    Ok(answer) => answer,
                    Err(Unread::Refused(why)) => return Ok(Came::Refused(why)),
                    Err(Unread::NotNow(why)) => return Err(why),
                };
                let head = answer.rows.into_iter().next();
                let head = head.map(|row| Ok::<_, String>((Head::decode(&row.value)?, row.version)));
                Ok(Came::Head(head.transpose()?))
            }
            Want::Write { when, head, rows } => {
                let condition = match when {
                    If::Absent => Some(KvCondition::Absent),
                    If::At(at) => Some(KvCondition::Version(at)),
                    If::Any => None,
                };
                let op = |key, value, condition| KvOp {
                    key,
                    value,
                    condition,
                    schema: None,
                    subject: None,
                    lasts: None,
                };
                let first = op(key_of(owner, b""), Some(head.encode()), condition);
                let rest = rows.iter().map(|(record, value)| op(key_of(owner, record), value.clone(), None));
                let ops = std::iter::once(first).chain(rest).collect();
                let (pool, class) = of;
                let write = KvWrite { class: class.clone(), keyspace: keyspace_of(pool), ops, hops: 0 };
                match Box::pin(self.write(write, WITHIN)).await {
                    Ok(Ok(written)) => Ok(Came::Written(written.version)),
                    Ok(Err(refusal)) if is_final(&refusal) => Ok(Came::Refused(refusal.to_string())),
                    Ok(Err(refusal)) => Err(refusal.to_string()),
                    Err(fault) => Err(fault.to_string()),
                }
            }
        }
    }

    /// All rows of a ledger, without its head. Nobody else writes them meanwhile.
    pub(in crate::supervisor) async fn ledger_rows(
        &self,
        of: (&PoolName, &DataClass),
        owner: &NodeId,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Unread> {
        let (first, to) = rows_of(owner);
        let (mut from, mut rows) = (first.clone(), Vec::new());
        loop {
            let KvAnswer { rows: page, next, .. } = self.pool_read(of, from, Some(to.clone())).await?;
            let record = |row: KvRow| Some((row.key.strip_prefix(first.as_slice())?.to_vec(), row.value));
            rows.extend(page.into_iter().filter_map(record).filter(|(record, _)| !record.is_empty()));
            match next {
                Some(next) => from = next,
                None => return Ok(rows),
            }
        }
    }

    async fn pool_read(
        &self,
        (pool, class): (&PoolName, &DataClass),
        from: Vec<u8>,
        to: Option<Vec<u8>>,
    ) -> Result<KvAnswer, Unread> {
        let read = KvRead {
            class: class.clone(),
            keyspace: keyspace_of(pool),
            limit: if to.is_some() { MAX_ROWS } else { 1 },
            from,
            to,
            needs: Needs::Strong,
            token: Vec::new(),
            nearest_only: false,
            fallback: false,
            hops: 0,
            as_stored: false,
        };
        as_read(Box::pin(self.read(read, WITHIN)).await)
    }
}

#[cfg(test)]
mod tests {
    use rhumb_actors::ranges::lifecycle::Life;

    use super::*;

    #[test]
    fn what_no_repetition_helps_is_told_from_what_passes() {
        let why = || "why".to_owned();
        for refusal in [
            KvRefusal::Invalid(why()),
            KvRefusal::NotAllowed(why()),
            KvRefusal::NotActive(Life::Archived),
            KvRefusal::WrongClass(DataClass::control()),
            KvRefusal::Unsound(why()),
        ] {
            assert!(is_final(&refusal), "{refusal:?}");
            let read = as_read(Ok(Err(refusal.clone())));
            assert_eq!(read, Err(Unread::Refused(refusal.to_string())), "a read no less than a write");
        }
        for refusal in [
            KvRefusal::NotNow { why: why(), retry_after: WITHIN },
            KvRefusal::Overloaded { why: why(), retry_after: WITHIN },
            KvRefusal::Condition { op: 0, found: None },
            KvRefusal::NoSuchKeyspace(why()),
            KvRefusal::Time(why()),
        ] {
            assert!(!is_final(&refusal), "{refusal:?}");
            let read = as_read(Ok(Err(refusal.clone())));
            assert_eq!(read, Err(Unread::NotNow(refusal.to_string())));
        }
    }
}
