//! What more than one range has, or one answer does not take, read part after part.
//!
//! * It decides: as of when each part is read, and what all of them together are.
//! * It never does: ask that a part shows what an earlier one has shown. Of one moment it is without that, by its time; and a node may
//!   not believe another one's token, as where the clock of one of them was reset.

use rhumb_actors::ranges::messages::{KvAnswer, KvRead, Needs};
use rhumb_core::Guarantee;

use crate::client::kv::{Kv, KvError};

/// Reads all that is asked for, each part to see what `token` stands for. The token of the answer is of what was seen with both.
pub(super) async fn all_parts(kv: &Kv<'_>, token: Vec<u8>, message: KvRead) -> Result<KvAnswer, KvError> {
    kv.goes_on(token.clone());
    let mut all = kv.read_with(token.clone(), message.clone()).await?;
    // A range answers for itself alone, and for so many bytes. The rest is read as of the same time, so that all of it is
    // of one moment; where it need not be, or may not be read elsewhere, it is of no one moment.
    let apart = message.needs == Needs::Eventual || message.nearest_only;
    let needs = if apart { message.needs } else { Needs::AsOf(all.at) };
    let level = if apart { Guarantee::Eventual } else { Guarantee::Snapshot };
    while let Some(from) = all.next.clone()
        && (all.rows.len() as u64) < message.limit
    {
        let limit = message.limit - all.rows.len() as u64;
        let more = kv.read_with(token.clone(), KvRead { from, limit, needs, ..message.clone() }).await?;
        all = KvAnswer {
            rows: all.rows.into_iter().chain(more.rows).collect(),
            level: all.level.min(more.level).min(level),
            at: all.at.min(more.at),
            age: all.age.max(more.age),
            fallback: all.fallback || more.fallback,
            erased: all.erased + more.erased,
            ..more
        };
    }
    all.token = kv.token();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use parking_lot::Mutex;
    use rhumb_actors::placement::messages::Placement;
    use rhumb_actors::ranges::lifecycle::Life;
    use rhumb_actors::ranges::messages::{KeyspaceView, KvRefusal, KvWrite, KvWritten, Lifetimes};
    use rhumb_actors::ranges::{Token, TokenKey};
    use rhumb_core::{ClusterId, DataClass, Epoch, HybridTime};

    use super::*;
    use crate::mesh::keyspaces::{Asked, Keyspaces};
    use crate::testing::{TestMesh, run};

    fn token(epoch: u64, ms: u64) -> Vec<u8> {
        let key = TokenKey::from_seed(ClusterId(7), &[1; 32]);
        key.sign(Token { epoch: Epoch(epoch), at: HybridTime::new(ms, 0) }).to_vec()
    }

    /// A keyspace of two ranges. The node of the first one has a later epoch of its clock, whose tokens that of the second one refuses.
    #[derive(Default)]
    struct OneWasReset(Mutex<Vec<(Needs, Vec<u8>)>>);

    impl Keyspaces for OneWasReset {
        fn list(&self) -> Result<Vec<KeyspaceView>, KvRefusal> {
            Ok(vec![KeyspaceView {
                id: 1,
                name: "things".to_owned(),
                class: DataClass::new("inventory").expect("a class"),
                replication: 0,
                ranges: vec![1, 2],
                nodes: vec!["eu/n1".parse().expect("a node")],
                lifetimes: Lifetimes::default(),
                life: Life::Active,
                held: Vec::new(),
                placement: Placement::default(),
            }])
        }

        fn read(&self, message: KvRead, _: Option<String>, _: Duration) -> Asked<KvAnswer> {
            self.0.lock().push((message.needs, message.token.clone()));
            let is_first = message.from.is_empty();
            let answer = KvAnswer {
                rows: Vec::new(),
                next: is_first.then(|| b"m".to_vec()),
                level: Guarantee::StrictSerializable,
                at: HybridTime::new(9, 0),
                age: Duration::ZERO,
                region: "eu".parse().expect("a region"),
                replica: 1,
                fallback: false,
                token: if is_first { token(1, 8) } else { token(0, 7) },
                erased: 0,
            };
            let refused = !is_first && message.token == token(1, 8);
            let answer = if refused { Err(KvRefusal::Token("a later epoch".to_owned())) } else { Ok(answer) };
            Box::pin(std::future::ready(Ok(answer)))
        }

        fn write(&self, _: KvWrite, _: Duration) -> Asked<KvWritten> {
            unreachable!("it is read only")
        }
    }

    #[test]
    fn each_part_is_asked_for_with_the_token_that_the_caller_brought() {
        run(async {
            let spaces = Arc::new(OneWasReset::default());
            let mesh = TestMesh::of(["eu"]).start().await.expect("it starts");
            mesh.at("eu").keeps(Arc::clone(&spaces) as Arc<dyn Keyspaces>);
            let moment = Needs::AsOf(HybridTime::new(9, 0));
            for (brought, needs, then, level, seen) in [
                (Vec::new(), Needs::Strong, moment, Guarantee::Snapshot, token(1, 8)),
                (token(0, 5), Needs::Strong, moment, Guarantee::Snapshot, token(1, 8)),
                (token(0, 9), Needs::Strong, moment, Guarantee::Snapshot, token(0, 9)),
                (Vec::new(), Needs::Eventual, Needs::Eventual, Guarantee::Eventual, token(1, 8)),
            ] {
                let kv = Kv::here(mesh.at("eu"), "things").await.expect("it is there");
                let asked = KvRead { to: Some(Vec::new()), ..kv.asks(needs) };
                let all = all_parts(&kv, brought.clone(), asked).await.expect("it is read");
                assert_eq!((all.level, all.token, all.next), (level, seen, None));
                let asked = std::mem::take(&mut *spaces.0.lock());
                assert_eq!(asked, [(needs, brought.clone()), (then, brought)]);
            }
        });
    }
}
