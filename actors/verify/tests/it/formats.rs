//! Notes, checkpoints, entries and proofs as text: as the specifications' examples have them, and nothing
//! else.

use rhumb_verify::hash;
use rhumb_verify::note::{Key, Note};
use rhumb_verify::record::{Entry, NoEntry, commitment};
use rhumb_verify::tlog_proof::TlogProof;
use rhumb_verify::{Checkpoint, Policy, proof};

use crate::{checkpoint, leaves, log, witness};

/// The example of c2sp.org/signed-note.
const KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const NOTE: &str = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
/// The example of c2sp.org/tlog-checkpoint.
const CHECKPOINT: &str =
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

#[test]
fn the_specifications_note_verifies_under_its_key_and_changed_it_does_not() {
    let (key, note): (Key, _) = (KEY.parse().expect("a key"), Note::parse(NOTE).expect("a note"));
    assert_eq!((key.to_string(), note.to_string()), (KEY.to_owned(), NOTE.to_owned()));
    assert_eq!(key.verify(&note).map(|signed| signed.is_some()), Ok(true));
    let changed = Note::parse(&NOTE.replace("example message", "exemplary message")).expect("a note");
    key.verify(&changed).expect_err("another text");
    let stranger = Key { name: "example.com/bar".to_owned(), ..key };
    assert_eq!(stranger.verify(&note), Ok(None), "signatures of others are passed over");
}

#[test]
fn what_is_no_note_is_refused() {
    let many = format!("text\n\n{}", "— a AAAAAAA=\n".repeat(65));
    let long = format!("{}\n\n— a AAAAAAA=\n", "x".repeat(rhumb_verify::note::MAX_NOTE));
    let wrong = [
        "",
        "text",
        "text\n",
        "text\n\n",
        "text\n— a AAAAAAA=\n",
        "text\n\n— a AAAAAAA=",
        "text\n\n- a AAAAAAA=\n",
        "text\n\n— a+b AAAAAAA=\n",
        "text\n\n— AAAAAAA=\n",
        "text\n\n— a AAAA\n",
        "text\n\n— a !!!\n",
        "te\txt\n\n— a AAAAAAA=\n",
        &many,
        &long,
    ];
    for note in wrong {
        assert!(Note::parse(note).is_err(), "{:?}", &note[..note.len().min(80)]);
    }
}

#[test]
fn a_key_whose_id_is_not_its_own_is_refused() {
    for wrong in
        [KEY.replace("530d903a", "530d903b"), KEY.replace('+', " "), KEY.replace("AeK", "BeK"), String::new()]
    {
        assert!(wrong.parse::<Key>().is_err(), "{wrong}");
    }
    let cosigner = witness("eu.example").key().to_string();
    assert_eq!(cosigner.parse::<Key>().map(|key| key.to_string()), Ok(cosigner));
}

#[test]
fn a_checkpoint_is_read_as_it_is_written() {
    let read: Checkpoint = CHECKPOINT.parse().expect("a checkpoint");
    assert_eq!((read.size, read.to_string()), (20_852_163, CHECKPOINT.to_owned()));
    let extended = format!("{CHECKPOINT}nonce bm93\n");
    let read: Checkpoint = extended.parse().expect("a checkpoint");
    assert!(read.has_nonce(b"now") && !read.has_nonce(b"then"));
    assert_eq!(read.to_string(), extended);
    let wrong = [
        CHECKPOINT.replace("20852163", "020852163"),
        CHECKPOINT.replace("20852163", "-1"),
        CHECKPOINT.replace("20852163", "+1"),
        CHECKPOINT.replace("20852163", "0"),
        CHECKPOINT.replace("20852163", "18446744073709551616"),
        CHECKPOINT.replace("I=", "I"),
        CHECKPOINT.trim_end().to_owned(),
        format!("{CHECKPOINT}\n"),
        format!("\n{CHECKPOINT}"),
    ];
    for text in wrong {
        assert!(text.parse::<Checkpoint>().is_err(), "{text:?}");
    }
}

#[test]
fn a_proof_for_somebody_else_is_read_as_it_is_written_and_verifies() {
    let mut all = leaves(300);
    let policy = format!("log {}\nwitness us {}\nquorum us\n", log().key(), witness("us.example").key());
    let policy = Policy::parse(&policy).expect("a policy");
    let proof = TlogProof {
        extra: Some(b"beside".to_vec()),
        index: 123,
        path: proof::prove_inclusion(&mut all[..], 123, 300).expect("in memory"),
        checkpoint: checkpoint(&all, &["us.example"], &[]),
    };
    let text = proof.to_string();
    let read: TlogProof = text.parse().expect("a proof");
    assert_eq!((read.to_string(), &read), (text.clone(), &proof));
    let trusted = read.verify(&all[123], &policy).expect("proven");
    assert_eq!((trusted.checkpoint.size, trusted.cosigned["us"]), (300, 1_700_000_000));
    read.verify(&all[124], &policy).expect_err("another entry");
    let flipped = text.replacen("index 123", "index 122", 1).parse::<TlogProof>().expect("a proof");
    flipped.verify(&all[123], &policy).expect_err("another number");
    let plain = TlogProof { extra: None, path: Vec::new(), ..proof };
    assert_eq!(plain.to_string().parse(), Ok(plain));
    for wrong in [
        text.replacen("@v1", "@v2", 1),
        text.replacen("index 123", "index 0123", 1),
        text.replacen("extra ", "extra !", 1),
        text.replacen("\n\n", "\n", 1),
        text.replacen("index", "number", 1),
    ] {
        assert!(wrong.parse::<TlogProof>().is_err(), "{}", wrong.lines().take(3).collect::<String>());
    }
}

#[test]
fn an_entry_commits_to_one_record_under_one_salt() {
    let (salt, record) = ([7; 32], br#"{"actor":"alice"}"#);
    let entry = Entry {
        time: 1_700_000_000_000 << 16 | 3,
        action: "pool.create".to_owned(),
        commitment: commitment(&salt, record),
    };
    let bytes = entry.encode();
    assert_eq!(Entry::decode(&bytes), Ok(entry.clone()));
    assert_eq!(entry.millis(), 1_700_000_000_000);
    assert_eq!(entry.commits_to(&salt, record), Ok(()));
    entry.commits_to(&salt, br#"{"actor":"carol"}"#).expect_err("another record");
    entry.commits_to(&[8; 32], record).expect_err("another salt");
    for cut in 0..bytes.len() {
        assert!(Entry::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert!(Entry::decode(&[&bytes[..], &[0]].concat()).is_err(), "a byte too many");
    let mut shouted = bytes.clone();
    shouted[15] = b'P';
    assert_eq!(Entry::decode(&shouted), Err(NoEntry::Action));
    assert_ne!(hash::leaf(&bytes), hash::leaf(&shouted));
}
