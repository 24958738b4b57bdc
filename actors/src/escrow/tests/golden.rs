//! The bytes on disk never change: a golden record of each kind, and records that must be refused.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use expect_test::expect;
use rhumb_core::{DataClass, HybridTime, Incarnation, NodeId, PoolName, Region, StoreId};
use rhumb_storage::{Batch, Family, MemoryDisk, MemoryEngine, Store};

use crate::escrow::messages::{CustomerTag, Durability, Key, Reserve};
use crate::escrow::records::{
    CountsMore, CountsRow, CustomerRow, Flow, HoldMore, HoldRow, Image, KeyRow, LinkRow, NodeRow, Outcome,
    PoolMore, PoolRow, Proof, Records, RecoverError, ReturnRow, Stage, Sums, WitnessRow,
};

fn node(name: &str) -> NodeId {
    name.parse().expect("a node id")
}

fn pool() -> PoolName {
    PoolName::new("concert").expect("valid")
}

fn time(ms: u64) -> HybridTime {
    HybridTime::new(ms, 7)
}

/// One record of each kind, in each of its shapes.
fn sample() -> Batch {
    let mut batch = Batch::new();
    let proof = Proof::Pending { number: 300, life: Incarnation(2) };
    batch.put_node(&NodeRow { life: Incarnation(3), proof, floor: Some(Incarnation(1)), keys_from: 900 });
    let witness =
        WitnessRow { store: StoreId(9), life: Incarnation(4), highest: 77, refuse_before: Incarnation(2) };
    batch.put_witness(&node("eu/n1"), &witness);
    let weights: BTreeMap<Region, u64> =
        [("ap", 0), ("us", 50)].map(|(r, w)| (Region::new(r).expect("valid"), w)).into();
    let row = PoolRow {
        class: DataClass::new("inventory").expect("valid"),
        supply: 10_000,
        weights,
        created: time(1_000),
        body: Some([0xab; 32]),
        durability: Durability::Local,
        debt_ceiling: 0,
        more: PoolMore::default(),
    };
    batch.put_pool(&pool(), &row);
    let (cleared, attested) = (Some(Incarnation(1)), Some(12));
    let units = Sums { minted: 10_000, consumed: 12, returned: 1 };
    batch.put_counts(&pool(), &CountsRow { units, cleared, attested, more: CountsMore::default() });
    let units = Flow { granted: 300, accepted: 20 };
    batch.put_link(&pool(), &node("eu/n1"), &LinkRow { units, more: Flow::default() });
    let more = HoldMore::default();
    let held = HoldRow { qty: 2, deadline: time(5_000), stage: Stage::Held, ended: None, more };
    batch.put_hold(&pool(), (Incarnation(3), 1), &held);
    for (number, stage) in (2..).zip([Stage::Committed, Stage::Released, Stage::Expired, Stage::Voided]) {
        let row = HoldRow { stage, ended: Some(time(4_000)), ..held.clone() };
        batch.put_hold(&pool(), (Incarnation(3), number), &row);
    }
    let outcome = Outcome::Held { pool: pool(), hold: (Incarnation(3), 1) };
    let made = Key::Made { home: node("us/n1"), created_ms: 999, nonce: "4f2a".to_owned() };
    batch.put_key(&made, &KeyRow { body: [0xcd; 16], seen: time(1_001), outcome });
    let outcome = Outcome::Forwarded { to: node("us/n1") };
    batch.put_key(&Key::Raw("by hand".to_owned()), &KeyRow { body: [0xef; 16], seen: time(2), outcome });
    batch
}

/// The same kinds, each with what its second layout added.
fn later() -> Batch {
    let mut batch = Batch::new();
    let image = Image::read(records(&sample()).into_iter()).expect("sound");
    let pool = PoolName::new("fair").expect("valid");
    let of = |image: &Image| image.pools.values().next().expect("one").pool.clone().expect("written");
    let reserve = Some(Reserve { node: node("us/n1"), units: 300 });
    let row = PoolRow { debt_ceiling: 50, more: PoolMore { reserve, per_customer: Some(4) }, ..of(&image) };
    batch.put_pool(&pool, &row);
    let units = Sums { minted: 10_000, consumed: 12, returned: 1 };
    let more = CountsMore { debt: Sums { minted: 50, consumed: 7, returned: 6 }, from_reserve: 99 };
    batch.put_counts(&pool, &CountsRow { units, cleared: None, attested: None, more });
    let (units, more) = (Flow { granted: 300, accepted: 20 }, Flow { granted: 30, accepted: 2 });
    batch.put_link(&pool, &node("eu/n1"), &LinkRow { units, more });
    let customer = CustomerTag::of(&pool, "alice").expect("valid");
    let part = |key, asked, qty| ReturnRow { key: [key; 16], asked, qty };
    let returns = vec![part(1, Some(1), 1), part(2, None, 2)];
    let more = HoldMore { secret: 0x9c3e_04d1_a2b8_5f67, debt: 1, customer: Some(customer), returns };
    let (deadline, ended) = (time(5_000), Some(time(4_000)));
    let row = HoldRow { qty: 3, deadline, stage: Stage::Committed, ended, more };
    batch.put_hold(&pool, (Incarnation(3), 1), &row);
    batch.put_customer(&pool, &customer, &CustomerRow { units: 5 });
    batch
}

fn records(batch: &Batch) -> Vec<(Vec<u8>, Vec<u8>)> {
    let disk = MemoryDisk::new();
    let store = Store::open(MemoryEngine::open(&disk)).expect("an empty disk is sound");
    store.write(batch).expect("the disk is sound");
    let mut records = Vec::new();
    let all = store.scan(Family::Escrow, b"", |key, value| {
        records.push((key.to_vec(), value.to_vec()));
        true
    });
    all.expect("the disk is sound");
    records
}

fn text(batch: &Batch) -> String {
    let mut text = String::new();
    for (key, value) in records(batch) {
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{} = {hex}", key.escape_ascii()).expect("a string takes it");
    }
    text
}

#[test]
fn what_came_later_follows_the_first_layout() {
    expect![[r#"
        cfair = 01fb10270c01000032070663
        hfair/\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x01 = 0103fc070088130101fc0700a00ffd675fb8a2d1043e9c0101052580d0fd86c4c7d3c1cc541286c1a10201010101010101010101010101010101010101020202020202020202020202020202020002
        lfair/eu/n1 = 01fb2c01141e02
        pfair = 0109696e76656e746f7279fb1027020261700002757332fc0700e80301abababababababababababababababababababababababababababababababab003201027573026e31fb2c010104
        ufair/\x05%\x80\xd0\xfd\x86\xc4\xc7\xd3\xc1\xccT\x12\x86\xc1\xa1 = 0005
    "#]].assert_eq(&text(&later()));
}

#[test]
fn the_bytes_on_disk_never_change() {
    expect![[r#"
        cconcert = 00fb10270c010101010c
        hconcert/\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x01 = 0002fc070088130000
        hconcert/\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x02 = 0002fc070088130101fc0700a00f
        hconcert/\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x03 = 0002fc070088130201fc0700a00f
        hconcert/\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x04 = 0002fc070088130301fc0700a00f
        hconcert/\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x05 = 0002fc070088130401fc0700a00f
        k\x00\x02us\x02n1\xfb\xe7\x03\x044f2a = 00cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdfc0700e9030007636f6e636572740301
        k\x01\x07by hand = 00efefefefefefefefefefefefefefefeffc0700020001027573026e31
        lconcert/eu/n1 = 00fb2c0114
        n = 000300fb2c01020101fb8403
        pconcert = 0009696e76656e746f7279fb1027020261700002757332fc0700e80301abababababababababababababababababababababababababababababababab0000
        weu/n1 = 0009044d02
    "#]].assert_eq(&text(&sample()));
}

#[test]
fn what_is_written_reads_back_the_same() {
    for written in [sample(), later()] {
        let image = Image::read(records(&written).into_iter()).expect("sound");
        assert_eq!(records(&again(&image)), records(&written));
    }
}

fn again(image: &Image) -> Batch {
    let mut again = Batch::new();
    image.node.iter().for_each(|row| again.put_node(row));
    for (peer, row) in &image.witnessed {
        again.put_witness(peer, row);
    }
    for (name, pool) in &image.pools {
        again.put_pool(name, pool.pool.as_ref().expect("written"));
        again.put_counts(name, &pool.counts);
        pool.links.iter().for_each(|(peer, row)| again.put_link(name, peer, row));
        pool.holds.iter().for_each(|(number, row)| again.put_hold(name, *number, row));
        pool.customers.iter().for_each(|(customer, row)| again.put_customer(name, customer, row));
    }
    image.keys.iter().for_each(|(key, row)| again.put_key(key, row));
    again
}

#[test]
fn a_record_that_can_not_be_read_stops_recovery() {
    for sound in [sample(), later()] {
        none_may_be_bad(records(&sound));
    }
}

fn none_may_be_bad(good: Vec<(Vec<u8>, Vec<u8>)>) {
    let refused = |records: Vec<(Vec<u8>, Vec<u8>)>| match Image::read(records.into_iter()) {
        Ok(_) => panic!("a bad record was taken"),
        Err(error) => error,
    };
    for (at, (key, value)) in good.iter().enumerate() {
        let with = |key: Vec<u8>, value: Vec<u8>| {
            let mut bad = good.clone();
            bad[at] = (key, value);
            assert!(matches!(refused(bad), RecoverError::Unreadable { .. }));
        };
        with(key.clone(), value[..value.len() - 1].to_vec());
        with(key.clone(), [value.as_slice(), b"x"].concat());
        with(key.clone(), [b"\x05", &value[1..]].concat());
        with([b"z", &key[1..]].concat(), value.clone());
    }
    let orphan: Vec<_> = good.into_iter().filter(|(key, _)| key[0] != b'p').collect();
    assert!(matches!(refused(orphan), RecoverError::NoPool(_)));
}
