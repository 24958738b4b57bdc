use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::codec;
use crate::{NodeId, PoolName, Region};

const NOTE: Extension =
    Extension { of: "cart.Add", field: "note", number: 1, since: 2, may_drop: false, layout: 7 };
const GIFT: Extension =
    Extension { of: "cart.Add", field: "gift", number: 2, since: 3, may_drop: true, layout: 8 };

/// Both fields written, and read back as the bytes that travel.
fn both() -> Extensions {
    let mut extensions = Extensions::new();
    extensions.put(&NOTE, &"ring twice".to_owned()).expect("encodes");
    extensions.put(&GIFT, &true).expect("encodes");
    travelled(&extensions)
}

fn travelled(extensions: &Extensions) -> Extensions {
    codec::decode(&codec::encode(extensions).expect("encodes")).expect("decodes")
}

#[test]
fn the_number_of_a_layout_is_fnv_1a() {
    assert_eq!(Layout::of("").finish(), Layout(FNV_OFFSET).number(0).finish());
    // Published test vectors of FNV-1a, 64 bits: "a" and "foobar".
    assert_eq!(Layout(FNV_OFFSET).byte(b'a').finish(), 0xaf63_dc4c_8601_ec8c);
    let foobar = b"foobar".iter().fold(Layout(FNV_OFFSET), |layout, byte| layout.byte(*byte));
    assert_eq!(foobar.finish(), 0x8594_4171_f739_67e8);
}

#[test]
fn the_numbers_of_layouts_never_change() {
    assert_eq!(u32::LAYOUT, 7_904_705_493_148_137_566);
    assert_eq!(Option::<Vec<String>>::LAYOUT, 1_447_225_098_266_288_967);
    assert_eq!(NodeId::LAYOUT, 6_714_807_596_184_689_603);
    assert_eq!(crate::Guarantee::LAYOUT, 5_358_597_469_115_734_244);
}

#[test]
fn what_the_codec_writes_alike_is_one_layout() {
    assert_eq!(Vec::<u8>::LAYOUT, VecDeque::<u8>::LAYOUT);
    assert_eq!(Vec::<u8>::LAYOUT, Box::<[u8]>::LAYOUT);
    assert_eq!(BTreeSet::<u8>::LAYOUT, HashSet::<u8>::LAYOUT);
    assert_eq!(BTreeMap::<u8, bool>::LAYOUT, HashMap::<u8, bool>::LAYOUT);
    assert_eq!(String::LAYOUT, Arc::<str>::LAYOUT);
    assert_eq!(usize::LAYOUT, u64::LAYOUT);
}

#[test]
fn what_means_something_else_is_another_layout() {
    let all = [
        <()>::LAYOUT,
        bool::LAYOUT,
        u8::LAYOUT,
        u16::LAYOUT,
        i16::LAYOUT,
        u64::LAYOUT,
        f64::LAYOUT,
        char::LAYOUT,
        String::LAYOUT,
        Duration::LAYOUT,
        Region::LAYOUT,
        PoolName::LAYOUT,
        NodeId::LAYOUT,
        Option::<u8>::LAYOUT,
        Vec::<u8>::LAYOUT,
        BTreeSet::<u8>::LAYOUT,
        BTreeMap::<u8, u8>::LAYOUT,
        <[u8; 2]>::LAYOUT,
        <[u8; 3]>::LAYOUT,
        <(u8,)>::LAYOUT,
        <(u8, u8)>::LAYOUT,
        <(u8, (u8, u8))>::LAYOUT,
        <((u8, u8), u8)>::LAYOUT,
        Result::<u8, u16>::LAYOUT,
        Result::<u16, u8>::LAYOUT,
        opaque("uuid-v1"),
        opaque("uuid-v2"),
    ];
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), all.len(), "two layouts have one number");
}

#[test]
fn a_value_says_its_layout_first_and_another_one_is_refused() {
    let bytes = encode(&7u32).expect("encodes");
    assert_eq!(bytes[..PREFIX_BYTES], prefix::<u32>().to_be_bytes());
    assert_eq!(bytes[PREFIX_BYTES..], codec::encode(&7u32).expect("encodes"));
    assert_eq!(decode::<u32>(&bytes), Ok(7));
    // As bytes alone, this would be a u64.
    let (theirs, ours) = (prefix::<u32>(), prefix::<u64>());
    assert_eq!(decode::<u64>(&bytes), Err(WireError::Layout { theirs, ours }));
    for cut in 0..PREFIX_BYTES {
        assert_eq!(decode::<u32>(&bytes[..cut]), Err(WireError::Short(cut)));
    }
    assert!(matches!(decode::<u32>(&bytes[..PREFIX_BYTES]), Err(WireError::Codec(_))));
}

#[test]
fn a_later_field_reads_back_and_one_that_is_its_default_is_not_written() {
    let mut extensions = both();
    assert_eq!(extensions.take::<String>(&NOTE), Ok("ring twice".to_owned()));
    assert_eq!(extensions.take::<bool>(&GIFT), Ok(true));
    assert_eq!(extensions.finish("cart.Add"), Ok(()));

    let mut none = Extensions::new();
    none.put(&NOTE, &String::new()).expect("encodes");
    none.put(&GIFT, &false).expect("encodes");
    assert_eq!(codec::encode(&none).expect("encodes").as_ref(), [0], "one byte for a type that may grow");
    let mut none = travelled(&none);
    assert_eq!(none.take::<String>(&NOTE), Ok(String::new()));
}

#[test]
fn the_bytes_of_later_fields_never_change() {
    let mut extensions = Extensions::new();
    extensions.put(&Extension { layout: 0x1234_5678_9abc_def0, ..NOTE }, &258u16).expect("encodes");
    let golden = [1, 1, 2, 0, 0x9a, 0xbc, 0xde, 0xf0, 3, 251, 2, 1];
    assert_eq!(codec::encode(&extensions).expect("encodes").as_ref(), golden);
}

#[test]
fn what_is_not_known_is_dropped_if_it_may_be_and_refused_by_name_if_not() {
    let mut extensions = both();
    extensions.take::<String>(&NOTE).expect("known");
    assert_eq!(extensions.finish("cart.Add"), Ok(()), "the gift may be dropped");

    let refused = both().finish("cart.Add").expect_err("the note may not");
    assert_eq!(refused, ExtensionError::Unknown { of: "cart.Add", number: 1, since: 2 });
    assert_eq!(
        refused.to_string(),
        "cart.Add carries its extension 1, since 2, which this build lacks and may not drop: upgrade this node, or declare the field `may_drop` there"
    );
}

#[test]
fn one_number_given_to_two_fields_is_refused_and_never_mistaken() {
    let other = Extension { field: "floor", since: 4, layout: 9, ..NOTE };
    let refused = both().take::<String>(&other).expect_err("another field has this number there");
    assert_eq!(
        refused.to_string(),
        "extension 1 of cart.Add is \"floor\" since 4 here and another field, since 2, there: one number was given to two fields"
    );
}

#[test]
fn later_fields_out_of_order_or_twice_are_refused() {
    let one = [1, 2, 0, 0, 0, 0, 7, 1, 1];
    let two = [2, 3, 1, 0, 0, 0, 8, 1, 1];
    let list = |parts: [&[u8]; 2]| codec::decode::<Extensions>(&[&[2][..], parts[0], parts[1]].concat());
    assert!(list([&one, &two]).is_ok());
    assert!(list([&two, &one]).is_err());
    assert!(list([&one, &one]).is_err());
}

#[test]
fn a_later_field_with_bytes_left_over_names_itself() {
    let mut extensions = Extensions::new();
    extensions.put(&NOTE, &"ring".to_owned()).expect("encodes");
    let refused = travelled(&extensions).take::<u8>(&NOTE).expect_err("a text is no number");
    assert!(refused.to_string().starts_with("cart.Add.note (extension 1): "), "{refused}");
}

#[test]
fn a_hash_is_the_same_in_every_process() {
    assert_eq!(hash_of("cart"), hash_of(&"cart".to_owned()));
    assert_ne!(hash_of(&("cart", 1)), hash_of(&("cart", 2)));
}
