//! Golden bytes, damage, and arbitrary input.

use proptest::prelude::*;

use super::*;

fn frame() -> Frame {
    Frame {
        kind: FrameKind::Ask,
        codec: 1,
        id: 0x0102_0304_0506_0708,
        deadline: Duration::from_micros(1_500_001),
        hybrid: HybridTime::new(0x0000_0198_0000_0001, 2),
        guarantee: Guarantee::StrictSerializable,
        required: Guarantee::Snapshot,
        trace: Some(TraceContext { trace_id: 0xabc, span_id: 0xdef, flags: 1 }),
        name: "escrow.hold.v1".into(),
        class: DataClass::new("inventory").expect("valid"),
        key: Some("us-east:1:k".into()),
        epoch: Some(Epoch(9)),
        chain: vec!["cart/42".into(), "till".into()],
        target: None,
        body: Bytes::from_static(b"body"),
    }
}

#[test]
fn a_frame_reads_back_what_was_written() {
    let mut expected = frame();
    expected.deadline = Duration::from_millis(1_501);
    assert_eq!(Frame::decode(frame().encode()).expect("whole"), expected);
    let answer = Frame::answer(FrameKind::Reply, 1, 7, DataClass::control(), Bytes::new());
    assert_eq!(Frame::decode(answer.encode()).expect("whole"), answer);
}

#[test]
fn the_bytes_of_a_frame_never_change() {
    let hex: String = frame().encode().iter().map(|b| format!("{b:02x}")).collect();
    let golden = concat!(
        "5268 01 01 01 01 008f 00000004 0102030405060708 0000000000000000 000005dd 0198000000010002",
        "04 02 01 00 00000000000000000000000000000abc 0000000000000def 558715ed",
        "01000e 657363726f772e686f6c642e7631 020009 696e76656e746f7279",
        "03000b 75732d656173743a313a6b 040008 0000000000000009",
        "050007 636172742f3432 050004 74696c6c 626f6479",
    );
    assert_eq!(hex, golden.replace(' ', ""));
}

#[test]
fn the_bytes_of_a_posts_kind_and_of_a_target_never_change() {
    let plain = frame().encode();
    let posted = Frame { kind: FrameKind::Post, target: Some("cart@us-east/42".into()), ..frame() };
    let bytes = posted.encode();
    assert_eq!((plain[3], bytes[3]), (1, 5));
    let field = b"\x06\x00\x0fcart@us-east/42";
    assert_eq!(&bytes[frame().head_len()..posted.head_len()], field, "after the fields that there were");
    assert_eq!(bytes[FIXED..frame().head_len()], plain[FIXED..frame().head_len()]);
    assert_eq!(Frame::decode(bytes).expect("whole").target, posted.target);
}

#[test]
fn the_kinds_of_frames_keep_their_numbers() {
    use FrameKind::{Ask, Fault, Post, Posts, Reply, Taken, Tell};
    let numbers =
        [Ask, Tell, Reply, Fault, Post, Posts, Taken].map(|kind| Frame { kind, ..frame() }.encode()[3]);
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_target_over_its_limit_is_a_fault_of_that_message_alone() {
    let target = |bytes: usize| {
        let mut field = vec![Field::Target as u8];
        field.extend_from_slice(&u16::try_from(bytes).expect("short").to_be_bytes());
        field.extend_from_slice(&vec![b'a'; bytes]);
        Frame::decode(resealed(|head| head.extend_from_slice(&field)))
    };
    assert_eq!(target(MAX_TARGET_BYTES).expect("fits").target.map(|target| target.len()), Some(512));
    let refused = target(MAX_TARGET_BYTES + 1);
    assert!(
        matches!(&refused, Err(FrameError::Message { reason, .. }) if reason == "target of 513 bytes is over 512"),
        "{refused:?}"
    );
}

#[test]
fn a_frame_of_more_callers_than_may_be_is_a_fault_of_that_message_alone() {
    let callers = |count: usize| {
        Frame::decode(resealed(|head| {
            head.truncate(FIXED);
            head.extend_from_slice(&[Field::Name as u8, 0, 1, b'x', Field::Class as u8, 0, 1, b'x']);
            head.extend_from_slice(&[Field::Caller as u8, 0, 0].repeat(count));
        }))
    };
    assert_eq!(callers(MAX_CALLERS).expect("as many as may be").chain.len(), MAX_CALLERS);
    for count in [MAX_CALLERS + 1, 5_000] {
        let refused = callers(count);
        assert!(
            matches!(&refused, Err(FrameError::Message { reason, .. }) if reason.contains("more than 32 callers")),
            "{refused:?}"
        );
    }
}

#[test]
fn every_cut_frame_is_refused() {
    let bytes = frame().encode();
    for cut in 0..bytes.len() {
        assert!(Frame::decode(bytes.slice(..cut)).is_err(), "cut at {cut}");
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let bytes = frame().encode();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let decoded = Frame::decode(damaged.into());
        assert!(matches!(decoded, Err(FrameError::Broken(_))), "bit {bit}: {decoded:?}");
    }
}

/// The frame with its bytes changed and its lengths and checksum made right again.
fn resealed(change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let original = frame();
    let mut head = original.encode()[..original.head_len()].to_vec();
    change(&mut head);
    let len = head.len() as u16;
    head[6..8].copy_from_slice(&len.to_be_bytes());
    let crc = checksum(&head, &original.body);
    head[CRC_AT..FIXED].copy_from_slice(&crc.to_be_bytes());
    head.extend_from_slice(&original.body);
    head.into()
}

#[test]
fn fields_of_a_later_version_are_skipped() {
    let bytes = resealed(|head| head.extend_from_slice(&[200, 0, 3, 1, 2, 3]));
    assert_eq!(Frame::decode(bytes).expect("readable").name, "escrow.hold.v1");
}

#[test]
fn a_whole_frame_that_says_nonsense_is_a_fault_of_that_message_alone() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(Change, &str); 6] = [
        (|head| head[3] = 9, "kind 9 is not known"),
        (|head| head[40] = 5, "guarantee 5 is not known"),
        (|head| head.extend_from_slice(&[1, 0]), "end in the middle"),
        (|head| head.extend_from_slice(&[1, 0, 9, 1]), "longer than its header"),
        (|head| head.extend_from_slice(&[2, 0, 1, b'A']), "not a valid data class"),
        (|head| head.truncate(FIXED), "no data class"),
    ];
    for (change, expected) in cases {
        match Frame::decode(resealed(change)) {
            Err(FrameError::Message { id, reason, .. }) => {
                assert_eq!(id, frame().id);
                assert!(reason.contains(expected), "{reason}");
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn a_frame_over_the_cap_is_refused_by_its_first_bytes() {
    let mut large = frame();
    large.body = vec![0; 5000].into();
    let mut deframer = Deframer::new(4096);
    deframer.feed(&large.encode()[..FIXED]);
    assert!(matches!(deframer.next_frame(), Err(Broken::OverCap { cap: 4096, .. })));
    assert!(deframer.buffer.capacity() < 4096, "nothing was set aside for it");
}

#[test]
fn what_is_set_aside_for_a_frame_is_a_few_times_what_has_come_of_it_at_most() {
    let mut large = frame();
    large.body = vec![7; 1 << 20].into();
    let mut deframer = Deframer::new(2 << 20);
    let (mut come, mut found) = (0, None);
    for piece in large.encode().chunks(1_400) {
        deframer.feed(piece);
        come += piece.len();
        let counted = deframer.set_aside_for(0);
        found = deframer.next_frame().expect("a whole frame");
        let ready = deframer.set_aside_for(0);
        assert!(deframer.buffer.capacity() <= 4 * come + (4 << 10), "after {come} bytes");
        // Where much is set aside at once, that is told.
        assert!(found.is_some() || ready >= counted && deframer.buffer.capacity() <= 2 * ready + (4 << 10));
        assert_eq!(deframer.set_aside_for(1 << 21), come + (1 << 21) - found.as_ref().map_or(0, Bytes::len));
    }
    let found = Frame::decode(found.expect("all of it has come")).expect("a frame");
    assert!(found.body == large.body);
}

#[test]
fn frames_are_found_however_the_bytes_are_cut() {
    let (first, mut second) = (frame(), frame());
    second.id = 2;
    let bytes = [first.encode(), second.encode()].concat();
    for chunk in 1..bytes.len() {
        let mut deframer = Deframer::new(4096);
        let mut ids = Vec::new();
        for piece in bytes.chunks(chunk) {
            deframer.feed(piece);
            while let Some(frame) = deframer.next_frame().expect("whole frames") {
                ids.push(Frame::decode(frame).expect("whole").id);
            }
        }
        assert_eq!(ids, [first.id, 2], "in pieces of {chunk}");
        assert!(!deframer.mid_frame());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Frame::decode(bytes.clone().into());
        let mut deframer = Deframer::new(200);
        deframer.feed(&bytes);
        while let Ok(Some(frame)) = deframer.next_frame() {
            let _ = Frame::decode(frame);
        }
    }

    #[test]
    fn arbitrary_fields_under_a_right_checksum_never_panic(
        fields in proptest::collection::vec(any::<u8>(), 0..300),
        kind in 0u8..9,
    ) {
        let _ = Frame::decode(resealed(|head| {
            head.truncate(FIXED);
            head[3] = kind;
            head.extend_from_slice(&fields);
        }));
    }

    #[test]
    fn whatever_is_written_is_read_back(
        name in "[a-z.]{1,40}", key in proptest::option::of("\\PC{0,40}"), id in any::<u64>(),
        epoch in proptest::option::of(any::<u64>()), chain in proptest::collection::vec("\\PC{0,30}", 0..5),
        body in proptest::collection::vec(any::<u8>(), 0..2000), millis in 0u32..,
        target in proptest::option::of("\\PC{0,60}"),
    ) {
        let written = Frame {
            name: name.into(), key, id, epoch: epoch.map(Epoch), chain, target: target.map(Into::into), body: body.into(),
            deadline: Duration::from_millis(millis.into()), ..frame()
        };
        prop_assert_eq!(Frame::decode(written.encode()).expect("whole"), written);
    }
}
