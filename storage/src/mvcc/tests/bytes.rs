//! Golden and hostile bytes of keys and records.

use proptest::prelude::*;
use rhumb_core::HybridTime;

use super::{Intent, KeyspaceId, Record, UserKey, VersionKey, key};
use crate::mvcc::key::MAX_KEY_BYTES;
use crate::mvcc::{Header, KeyError, KeyTooLong, RecordError, Sealed, Subject, SubjectTooLong};

fn golden_key() -> (VersionKey, Vec<u8>) {
    let at = HybridTime::from_bits(0x0199_8877_6655_0007);
    let key = VersionKey { keyspace: KeyspaceId(0x0102_0304), key: key(*b"a\0b"), at };
    let bytes = [b"v\x01\x02\x03\x04a\0\xffb\0\x01".as_slice(), b"\xfe\x66\x77\x88\x99\xaa\xff\xf8"].concat();
    (key, bytes)
}

fn golden_record() -> (Record, Vec<u8>) {
    let header = Header {
        intent: Some(Intent(0x1122)),
        schema: Some(5),
        expires: Some(HybridTime::from_bits(0xABCD)),
        subject: Some(Subject::new("eve").expect("short")),
        sealed: Some(Sealed { key: [7; 16], nonce: [9; 12] }),
    };
    let bytes = [
        b"\x01\x3e".as_slice(),
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x11\x22",
        b"\0\0\0\x05",
        b"\0\0\0\0\0\0\xab\xcd",
        b"\x03eve",
        &[7; 16],
        &[9; 12],
        b"value",
    ]
    .concat();
    let sum = crc32c::crc32c(&[b"row".as_slice(), &bytes].concat());
    (Record { header, value: Some(b"value".to_vec()) }, [bytes, sum.to_be_bytes().to_vec()].concat())
}

#[test]
fn the_bytes_of_a_versions_key_never_change() {
    let (version, bytes) = golden_key();
    assert_eq!(version.encode(), bytes, "{}", version.encode().escape_ascii());
    assert_eq!(VersionKey::decode(&bytes), Ok(version));
}

#[test]
fn the_bytes_of_a_record_never_change() {
    let (record, bytes) = golden_record();
    assert_eq!(record.encode(b"row"), bytes);
    assert_eq!(Record::decode(b"row", &bytes), Ok(record));
    // The checksums are CRC-32C of `row`, the format and the flags, worked out by another program.
    assert_eq!(Record::deleted().encode(b"row"), *b"\x01\x01\xc6\xf6\xfe\x5d");
    assert_eq!(Record::put("").encode(b"row"), *b"\x01\x00\x34\x9d\x7d\x5e");
}

#[test]
fn a_key_that_is_cut_or_goes_on_is_refused() {
    let (_, bytes) = golden_key();
    for cut in 0..bytes.len() {
        assert!(VersionKey::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert_eq!(VersionKey::decode(&[&bytes[..], b"x"].concat()), Err(KeyError::Time(9)));
    assert_eq!(VersionKey::decode(b"r\0\0\0\x01a\0\x01"), Err(KeyError::Kind));
    assert_eq!(VersionKey::decode(b"v\0\0\0\x01a\0\x02\0\0\0\0\0\0\0\0"), Err(KeyError::Escape));
    let long = [b"v\0\0\0\x01".as_slice(), &[b'x'; MAX_KEY_BYTES + 1], b"\0\x01\0\0\0\0\0\0\0\0"].concat();
    assert_eq!(VersionKey::decode(&long), Err(KeyError::TooLong(KeyTooLong(MAX_KEY_BYTES + 1))));
    assert_eq!(UserKey::new(vec![0; MAX_KEY_BYTES + 1]), Err(KeyTooLong(MAX_KEY_BYTES + 1)));
}

/// The same bytes with the checksum that they should have.
fn summed(row: &[u8], said: &[u8]) -> Vec<u8> {
    let sum = crc32c::crc32c(&[row, said].concat());
    [said, &sum.to_be_bytes()].concat()
}

#[test]
fn a_record_of_a_later_build_or_of_another_key_is_refused_by_name() {
    let (_, bytes) = golden_record();
    assert_eq!(Record::decode(b"raw", &bytes), Err(RecordError::Checksum), "under another key");
    let decode = |said: &[u8]| Record::decode(b"row", &summed(b"row", said));
    assert_eq!(decode(b"\x02\x00"), Err(RecordError::Format(2)));
    assert_eq!(decode(b"\x01\x40"), Err(RecordError::Flags(0x40)));
    assert_eq!(decode(b"\x01\x04\0\0\0"), Err(RecordError::Part("schema version")));
    assert_eq!(decode(b"\x01\x10\x03ev"), Err(RecordError::Part("subject")));
    assert_eq!(decode(b"\x01\x10\x00"), Err(RecordError::Part("subject")), "a subject without a name");
    assert_eq!(decode(b"\x01\x10\x02\xff\xff"), Err(RecordError::Part("subject")), "no UTF-8");
    assert_eq!(decode(b"\x01\x01x"), Err(RecordError::Deletion));
    assert_eq!(decode(b"\x01\x05\0\0\0\x01"), Err(RecordError::Deletion));
    assert_eq!(Record::decode(b"row", b""), Err(RecordError::Short(0)));
    let bare = summed(b"row", b"");
    assert_eq!(Record::decode(b"row", &bare), Err(RecordError::Short(4)));
}

#[test]
fn every_flipped_bit_of_a_record_is_noticed() {
    let (_, bytes) = golden_record();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Record::decode(b"row", &flipped), Err(RecordError::Checksum), "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert!(Record::decode(b"row", &bytes[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn subjects_have_a_name_of_a_length_that_fits() {
    assert_eq!(Subject::new(""), Err(SubjectTooLong(0)));
    assert_eq!(Subject::new(&"x".repeat(256)), Err(SubjectTooLong(256)));
    assert_eq!(Subject::new(&"x".repeat(255)).expect("it fits").as_str().len(), 255);
}

/// Keys with many zeros and 0xFF in them.
fn nasty() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xFF), any::<u8>()], 0..6)
}

fn versions() -> impl Strategy<Value = VersionKey> {
    let time = prop_oneof![any::<u64>(), 0u64..4];
    let parts = (0u32..3, nasty(), time);
    parts.prop_map(|(space, name, bits)| VersionKey {
        keyspace: KeyspaceId(space),
        key: key(name),
        at: HybridTime::from_bits(bits),
    })
}

fn headers() -> impl Strategy<Value = Header> {
    let parts = (
        prop::option::of(any::<u128>()),
        prop::option::of(any::<u32>()),
        prop::option::of(any::<u64>()),
        prop::option::of("[a-zäß]{1,40}"),
        prop::option::of((any::<[u8; 16]>(), any::<[u8; 12]>())),
    );
    parts.prop_map(|(intent, schema, expires, subject, sealed)| Header {
        intent: intent.map(Intent),
        schema,
        expires: expires.map(HybridTime::from_bits),
        subject: subject.map(|name| Subject::new(&name).expect("short")),
        sealed: sealed.map(|(key, nonce)| Sealed { key, nonce }),
    })
}

proptest! {
    #[test]
    fn rows_stand_in_the_order_of_keyspaces_keys_and_falling_times(a in versions(), b in versions()) {
        let meant = (a.keyspace, &a.key, b.at).cmp(&(b.keyspace, &b.key, a.at));
        prop_assert_eq!(a.encode().cmp(&b.encode()), meant);
        prop_assert_eq!(VersionKey::decode(&a.encode()), Ok(a));
    }

    #[test]
    fn records_read_back(header in headers(), value in prop::collection::vec(any::<u8>(), 0..40), row in nasty()) {
        let put = Record { header: header.clone(), value: Some(value) };
        prop_assert_eq!(Record::decode(&row, &put.encode(&row)), Ok(put));
        let kept = Header { schema: None, expires: None, sealed: None, ..header };
        let deleted = Record { header: kept, value: None };
        prop_assert_eq!(Record::decode(&row, &deleted.encode(&row)), Ok(deleted));
    }

    #[test]
    fn hostile_bytes_are_refused_or_write_back_as_they_were(
        bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(b'v'), any::<u8>()], 0..80),
        flags in 0u8..64,
        said in prop::collection::vec(any::<u8>(), 0..70),
    ) {
        if let Ok(version) = VersionKey::decode(&bytes) {
            prop_assert_eq!(version.encode(), bytes);
        }
        // Past the checksum, which only who writes to the disk can make right.
        let forged = summed(b"row", &[&[1, flags], said.as_slice()].concat());
        if let Ok(record) = Record::decode(b"row", &forged) {
            prop_assert_eq!(record.encode(b"row"), forged);
        }
    }
}
