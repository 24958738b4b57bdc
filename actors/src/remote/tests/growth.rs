//! Two builds of one message talk in both directions, or refuse by name; nothing is mis-decoded.

use std::collections::BTreeMap;
use std::fmt::Debug;

use expect_test::expect;
use proptest::prelude::*;
use rhumb_core::wire::{self, WireError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::remote::Remote;
use crate::{Wire, grows, remote};

/// As it was at first.
mod v1 {
    use super::*;

    #[grows(crate = crate)]
    #[derive(Debug, Clone, PartialEq)]
    pub(super) struct Line {
        pub sku: String,
        pub qty: u32,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Wire)]
    #[wire(crate = crate)]
    pub(super) enum Edit {
        Put(u32),
        Remove { sku: String },
    }

    #[grows(crate = crate)]
    #[derive(Debug, Clone, PartialEq)]
    pub(super) struct Total {
        pub cents: u64,
    }

    #[remote(crate = crate, name = "cart.Change", class = "inventory", reply = Result<Total, String>)]
    #[derive(Debug, Clone, PartialEq)]
    pub(super) struct Change {
        pub cart: String,
        pub lines: Vec<Line>,
        pub edits: Vec<Edit>,
    }
}

/// As it is now.
mod v2 {
    use super::*;

    #[grows(crate = crate)]
    #[derive(Debug, Clone, PartialEq)]
    pub(super) struct Line {
        pub sku: String,
        pub qty: u32,
        #[since(2)]
        pub engraving: String,
        #[since(2, may_drop)]
        pub hint: Option<String>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Wire)]
    #[wire(crate = crate)]
    pub(super) enum Edit {
        Put(u32),
        Remove {
            sku: String,
        },
        #[since(2)]
        Clear,
    }

    #[grows(crate = crate)]
    #[derive(Debug, Clone, PartialEq)]
    pub(super) struct Total {
        pub cents: u64,
        #[since(2)]
        pub currency: Option<String>,
        #[since(3, may_drop)]
        pub saved: u64,
    }

    #[remote(crate = crate, name = "cart.Change", class = "inventory", reply = Result<Total, String>)]
    #[derive(Debug, Clone, PartialEq)]
    pub(super) struct Change {
        pub cart: String,
        pub lines: Vec<Line>,
        pub edits: Vec<Edit>,
        #[since(2, may_drop)]
        pub campaign: Option<String>,
        #[since(3)]
        pub coupons: BTreeMap<String, u32>,
    }
}

fn old() -> v1::Change {
    let lines = vec![v1::Line { sku: "a".into(), qty: 1 }, v1::Line { sku: "b".into(), qty: 300 }];
    v1::Change { cart: "42".into(), lines, edits: vec![v1::Edit::Put(7)] }
}

/// The same, by a newer build that says nothing new.
fn new() -> v2::Change {
    let line = |sku: &str, qty| v2::Line { sku: sku.into(), qty, engraving: String::new(), hint: None };
    v2::Change {
        cart: "42".into(),
        lines: vec![line("a", 1), line("b", 300)],
        edits: vec![v2::Edit::Put(7)],
        campaign: None,
        coupons: BTreeMap::new(),
    }
}

/// What a build reads from what another wrote.
fn reads<T: Wire + DeserializeOwned>(written: &(impl Wire + Serialize)) -> Result<T, WireError> {
    wire::decode(&wire::encode(written).expect("encodes"))
}

fn refusal<T: Wire + DeserializeOwned + Debug>(written: &(impl Wire + Serialize)) -> String {
    reads::<T>(written).expect_err("must be refused").to_string()
}

#[test]
fn a_newer_build_reads_an_older_message() {
    assert_eq!(reads::<v2::Change>(&old()), Ok(new()));
}

#[test]
fn an_older_build_reads_a_newer_message_that_says_nothing_new() {
    assert_eq!(reads::<v1::Change>(&new()), Ok(old()));
}

#[test]
fn an_older_build_drops_what_may_be_dropped() {
    let mut newer = new();
    newer.campaign = Some("spring".into());
    newer.lines[1].hint = Some("for Ada".into());
    assert_eq!(reads::<v1::Change>(&newer), Ok(old()));
    assert_eq!(reads::<v2::Change>(&newer), Ok(newer));
}

#[test]
fn an_older_build_refuses_by_name_what_may_not_be_dropped() {
    let coupons = v2::Change { coupons: BTreeMap::from([("SPRING".into(), 1)]), ..new() };
    expect!["cannot be decoded: cart.Change carries its extension 2, since 3, which this build lacks and may not drop: upgrade this node, or declare the field `may_drop` there"]
    .assert_eq(&refusal::<v1::Change>(&coupons));
    assert_eq!(reads::<v2::Change>(&coupons), Ok(coupons));
}

#[test]
fn an_older_build_refuses_by_name_what_a_line_in_a_list_may_not_drop() {
    let mut engraved = new();
    engraved.lines[1].engraving = "to Ada".into();
    expect!["cannot be decoded: Line carries its extension 1, since 2, which this build lacks and may not drop: upgrade this node, or declare the field `may_drop` there"]
    .assert_eq(&refusal::<v1::Change>(&engraved));
    assert_eq!(reads::<v2::Change>(&engraved), Ok(engraved));
}

#[test]
fn an_older_build_refuses_a_variant_that_it_lacks() {
    let cleared = v2::Change { edits: vec![v2::Edit::Put(1), v2::Edit::Clear], ..new() };
    expect!["cannot be decoded: invalid value: integer `2`, expected variant index 0 <= i < 2"]
        .assert_eq(&refusal::<v1::Change>(&cleared));
}

#[test]
fn replies_grow_as_messages_do() {
    type Old = <v1::Change as Remote>::Reply;
    type New = <v2::Change as Remote>::Reply;
    let older: Old = Ok(v1::Total { cents: 990 });
    let newer: New = Ok(v2::Total { cents: 990, currency: None, saved: 0 });
    assert_eq!(reads::<New>(&older).as_ref(), Ok(&newer));
    assert_eq!(reads::<Old>(&newer).as_ref(), Ok(&older));
    let saved: New = Ok(v2::Total { cents: 990, currency: None, saved: 10 });
    assert_eq!(reads::<Old>(&saved), Ok(older));
    let euro: New = Ok(v2::Total { cents: 990, currency: Some("EUR".into()), saved: 10 });
    assert!(refusal::<Old>(&euro).contains("Total carries its extension 1, since 2,"));
    let refused: New = Err("no such cart".into());
    assert_eq!(reads::<Old>(&refused), Ok(Err("no such cart".into())));
}

#[test]
fn what_is_added_leaves_the_layout_and_raises_the_version() {
    assert_eq!(v1::Line::LAYOUT, v2::Line::LAYOUT);
    assert_eq!(v1::Edit::LAYOUT, v2::Edit::LAYOUT);
    assert_eq!(v1::Change::LAYOUT, v2::Change::LAYOUT);
    assert_eq!(<v1::Change as Remote>::VERSION, 1);
    assert_eq!(<v2::Change as Remote>::VERSION, 3);
}

/// Builds of a message whose first version was changed, which nobody may do.
mod changed {
    use super::*;

    macro_rules! change {
        ($($module:ident { $($field:ident: $ty:ty),* })*) => {
            $(pub(super) mod $module {
                #[crate::remote(crate = crate, name = "cart.Count", class = "inventory", reply = u32)]
                #[derive(Debug)]
                pub(in super::super) struct Count { $(pub $field: $ty),* }
            })*
        };
    }

    change! {
        original { sku: String, qty: u32 }
        renamed { sku: String, count: u32 }
        retyped { sku: String, qty: i32 }
        reordered { qty: u32, sku: String }
        longer { sku: String, qty: u32, note: String }
        shorter { sku: String }
    }

    #[derive(Debug, Serialize, Deserialize, Wire)]
    #[wire(crate = crate)]
    pub(super) struct Fixed {
        pub sku: String,
        pub qty: u32,
    }
}

#[test]
fn a_changed_first_version_is_refused_before_it_is_decoded() {
    let original = changed::original::Count { sku: "a".into(), qty: 1 };
    fn refused<T: Wire + DeserializeOwned + Debug>(written: &(impl Wire + Serialize)) {
        assert!(
            matches!(reads::<T>(written), Err(WireError::Layout { .. })),
            "{}",
            std::any::type_name::<T>()
        );
    }
    refused::<changed::renamed::Count>(&original);
    refused::<changed::retyped::Count>(&original);
    refused::<changed::reordered::Count>(&original);
    refused::<changed::longer::Count>(&original);
    refused::<changed::shorter::Count>(&original);
    refused::<changed::Fixed>(&original);
    assert!(reads::<changed::original::Count>(&original).is_ok());
}

/// Two builds that gave one number to different fields.
mod forked {
    #[crate::grows(crate = crate)]
    #[derive(Debug)]
    pub(super) struct Line {
        pub sku: String,
        #[since(2, may_drop)]
        pub engraving: u32,
    }

    pub(super) mod other {
        #[crate::grows(crate = crate)]
        #[derive(Debug)]
        pub(in super::super) struct Line {
            pub sku: String,
            #[since(2, may_drop)]
            pub engraving: i32,
        }
    }
}

#[test]
fn one_number_for_two_fields_is_refused_by_name() {
    let line = forked::Line { sku: "a".into(), engraving: 3 };
    expect!["cannot be decoded: extension 1 of Line is \"engraving\" since 2 here and another field, since 2, there: one number was given to two fields"]
    .assert_eq(&refusal::<forked::other::Line>(&line));
}

#[test]
fn the_bytes_of_a_message_never_change() {
    let mut message = new();
    message.edits.push(v2::Edit::Remove { sku: "c".into() });
    message.lines[0].hint = Some("x".into());
    message.campaign = Some("spring".into());
    let hex: String =
        wire::encode(&message).expect("encodes").iter().map(|byte| format!("{byte:02x}")).collect();
    expect!["c1b8bf94023432020161010102020188f59398030101780162fb2c010002000701016301010201ffa2f4a3080106737072696e67"].assert_eq(&hex);
}

#[test]
fn the_numbers_of_layouts_never_change() {
    let layouts =
        [v1::Change::LAYOUT, v1::Line::LAYOUT, v1::Edit::LAYOUT, <v1::Change as Remote>::Reply::LAYOUT];
    expect!["daeff6cec1b8bf94 d2031da93044f9d3 4b23600fa6f7d6bf 0424a51f9d561a23"]
        .assert_eq(&layouts.map(|layout| format!("{layout:016x}")).join(" "));
}

proptest! {
    #[test]
    fn no_bytes_make_a_growing_type_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = wire::decode::<v2::Change>(&[&wire::prefix::<v2::Change>().to_be_bytes()[..], &bytes].concat());
        let _ = wire::decode::<v2::Change>(&bytes);
    }

    #[test]
    fn no_change_of_good_bytes_makes_it_panic(at in 0usize..80, byte: u8, cut in 0usize..80) {
        let mut message = new();
        message.lines[0].hint = Some("x".into());
        message.coupons.insert("SPRING".into(), 1);
        let mut bytes = wire::encode(&message).expect("encodes").to_vec();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        let _ = wire::decode::<v2::Change>(&bytes);
        let _ = wire::decode::<v1::Change>(&bytes[..cut.min(bytes.len())]);
    }

    #[test]
    fn what_is_written_reads_back_the_same(
        cart: String,
        lines in prop::collection::vec((any::<String>(), any::<u32>(), any::<String>(), any::<Option<String>>()), 0..5),
        campaign: Option<String>,
        coupons: BTreeMap<String, u32>,
    ) {
        let line = |(sku, qty, engraving, hint)| v2::Line { sku, qty, engraving, hint };
        let lines = lines.into_iter().map(line).collect();
        let message = v2::Change { cart, lines, edits: vec![v2::Edit::Clear], campaign, coupons };
        prop_assert_eq!(reads::<v2::Change>(&message), Ok(message));
    }
}
