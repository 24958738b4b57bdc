use expect_test::{Expect, expect};
use proptest::prelude::*;
use rhumb_core::{DataClass, Direction, Gate, Passage, Region};

use super::*;

const POLICY: &str = r#"
version = 3

[jurisdictions]
eu = ["eu-central", "eu-west"]
us = ["us-east"]
ap = ["ap-southeast"]

[classes.inventory]
hold  = ["all"]
read  = ["all"]
carry = ["all"]

[classes.personal]
hold  = ["jurisdiction:eu"]
read  = ["jurisdiction:eu", "ap-southeast"]
carry = ["us-east"]
audit_reads = true

[[exceptions]]
class   = "personal"
from    = "jurisdiction:eu"
to      = "us-east"
reason  = "migration, approved"
expires = 2031-07-31T02:00:00+02:00
"#;

/// The exception's end: `date -d 2031-07-31T00:00:00Z +%s`.
const END_MS: u64 = 1_943_222_400_000;

fn region(name: &str) -> Region {
    Region::new(name).expect("valid")
}

fn class(name: &str) -> DataClass {
    DataClass::new(name).expect("valid")
}

fn snapshot(text: &str) -> PolicySnapshot {
    let mesh = ["eu-central", "us-east", "ap-southeast", "sa-east"].map(region);
    PolicySnapshot::compile(Policy::parse(text).expect("a good policy"), &mesh, 1_000)
}

/// One way a line: `class from to`; the answer is put after it.
fn passages(snapshot: &PolicySnapshot, ways: &str, want: Expect) {
    let mut answers = String::new();
    for way in ways.split('\n').map(str::trim).filter(|way| !way.is_empty()) {
        let [of, from, to] = way.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{way:?}") };
        let (of, from, to) = (class(of), region(from), region(to));
        let ask = |direction| {
            let passage = Passage { direction, class: &of, from: &from, to: &to };
            assert_eq!(snapshot.check(passage).err(), snapshot.decide(passage).err());
            match snapshot.decide(passage) {
                Ok(Permit::Control) => "passes as control".into(),
                Ok(Permit::Rule) => "passes".into(),
                Ok(Permit::Exception(by)) => format!("passes by exception: {}", by.reason),
                Err(refusal) => format!("refused: {}", refusal.reason),
            }
        };
        let answer = ask(Direction::Egress);
        assert_eq!(answer, ask(Direction::Ingress), "both gates decide alike");
        answers.push_str(&format!("{way}: {answer}\n"));
    }
    want.assert_eq(&answers);
}

#[test]
fn data_passes_where_the_policy_says_and_nowhere_else() {
    passages(
        &snapshot(POLICY),
        "
        inventory us-east      ap-southeast
        inventory eu-central   eu-central
        personal  eu-central   eu-west
        personal  eu-central   ap-southeast
        personal  us-east      eu-central
        personal  us-east      us-east
        personal  ap-southeast ap-southeast
        personal  ap-southeast eu-central
        personal  us-east      ap-southeast
        personal  eu-west      us-east
        personal  ap-southeast us-east
        personal  sa-east      eu-central
        personal  eu-central   sa-east
        payments  us-east      us-east
        control   mars         venus
        ",
        expect![[r#"
            inventory us-east      ap-southeast: passes
            inventory eu-central   eu-central: passes
            personal  eu-central   eu-west: passes
            personal  eu-central   ap-southeast: passes
            personal  us-east      eu-central: passes
            personal  us-east      us-east: passes
            personal  ap-southeast ap-southeast: passes
            personal  ap-southeast eu-central: refused: policy version 3: region ap-southeast may neither hold nor carry it
            personal  us-east      ap-southeast: passes
            personal  eu-west      us-east: passes by exception: migration, approved
            personal  ap-southeast us-east: refused: policy version 3: region ap-southeast may neither hold nor carry it
            personal  sa-east      eu-central: refused: policy version 3 names region sa-east in no jurisdiction
            personal  eu-central   sa-east: refused: policy version 3 names region sa-east in no jurisdiction
            payments  us-east      us-east: refused: policy version 3 has no class payments
            control   mars         venus: passes as control
        "#]],
    );
}

#[test]
fn without_a_policy_only_control_passes() {
    let none = PolicySnapshot::none();
    passages(
        &none,
        "control a b\n inventory a b\n inventory a a",
        expect![[r#"
        control a b: passes as control
        inventory a b: refused: no policy is loaded, and only class control passes without one
        inventory a a: refused: no policy is loaded, and only class control passes without one
    "#]],
    );
    assert_eq!(none.version(), None);
    assert!(none.describe().starts_with("no policy is loaded"));
    assert!(none.audits_reads(&class("inventory")));
}

#[test]
fn an_exception_ends_at_its_time_and_stays_ended() {
    let snapshot = snapshot(POLICY);
    let way = "personal eu-central us-east";
    snapshot.observe(END_MS - 1);
    passages(
        &snapshot,
        way,
        expect![[r#"
        personal eu-central us-east: passes by exception: migration, approved
    "#]],
    );
    snapshot.observe(END_MS);
    snapshot.observe(5);
    passages(
        &snapshot,
        way,
        expect![[r#"
        personal eu-central us-east: refused: policy version 3: region us-east may neither hold nor read it; an exception ended at 2031-07-31T00:00:00Z
    "#]],
    );
}

#[test]
fn places_are_asked_by_use() {
    let snapshot = snapshot(POLICY);
    let ask = |place: &str, usage| snapshot.permits(&region(place), usage, &class("personal"));
    assert_eq!(ask("eu-west", Use::Hold), Ok(()));
    assert_eq!(ask("us-east", Use::Carry), Ok(()));
    for (place, usage, want) in [
        ("us-east", Use::Hold, "policy version 3: region us-east may not hold class personal"),
        ("ap-southeast", Use::Carry, "policy version 3: region ap-southeast may not carry class personal"),
        ("sa-east", Use::Read, "policy version 3 names region sa-east in no jurisdiction"),
    ] {
        assert_eq!(ask(place, usage), Err(want.to_owned()));
    }
    assert!(snapshot.audits_reads(&class("personal")) && !snapshot.audits_reads(&class("inventory")));
    assert!(snapshot.permits(&region("mars"), Use::Hold, &DataClass::control()).is_ok());
}

#[test]
fn a_policy_is_shown_with_what_an_operator_should_look_at() {
    let snapshot = snapshot(POLICY);
    snapshot.observe(END_MS);
    expect![[r#"
        policy version 3
        jurisdiction ap: ap-southeast
        jurisdiction eu: eu-central, eu-west
        jurisdiction us: us-east
        class inventory
          hold  ap-southeast, eu-central, eu-west, us-east
          read  ap-southeast, eu-central, eu-west, us-east
          carry ap-southeast, eu-central, eu-west, us-east
        class personal, reads audited
          hold  eu-central, eu-west
          read  ap-southeast, eu-central, eu-west
          carry us-east
        exception for personal from eu-central, eu-west to us-east, ended 2031-07-31T00:00:00Z: migration, approved
        note: region sa-east of this mesh stands in no jurisdiction: all labelled data is refused there
        note: the policy names region eu-west, which has no node in this mesh
    "#]].assert_eq(&snapshot.describe());
}

/// Classes of which each differs from `base` in one thing.
const CLASSES: &str = r#"
version = 1
[jurisdictions]
eu = ["a", "b"]
us = ["c"]
[classes.base]
hold = ["a", "b"]
read = ["c"]
carry = ["a"]
audit_reads = true
[classes.same]
hold = ["a", "b"]
read = ["c"]
carry = ["a"]
audit_reads = true
[classes.held-less]
hold = ["a"]
read = ["c"]
carry = ["a"]
audit_reads = true
[classes.held-more]
hold = ["all"]
read = ["c"]
carry = ["a"]
audit_reads = true
[classes.read-where-held]
hold = ["a"]
read = ["b", "c"]
carry = ["a"]
audit_reads = true
[classes.carried-more]
hold = ["a", "b"]
read = ["c"]
carry = ["a", "b"]
audit_reads = true
[classes.unaudited]
hold = ["a", "b"]
read = ["c"]
carry = ["a"]
[classes.opened]
hold = ["a"]
read = []
carry = []
audit_reads = true
[classes.nowhere]
hold = []
read = []
carry = []
audit_reads = true
[[exceptions]]
class = "opened"
from = "a"
to = "c"
reason = "r"
expires = 2031-07-31T00:00:00Z
"#;

#[test]
fn a_class_is_no_less_strict_than_another_when_it_opens_nothing_that_the_other_does_not() {
    let snapshot = snapshot(CLASSES);
    for (of, than, want) in [
        ("base", "base", true),
        ("same", "base", true),
        ("base", "same", true),
        ("held-less", "base", true),
        ("base", "held-less", false),
        ("held-more", "base", false),
        ("base", "held-more", true),
        ("read-where-held", "base", true),
        ("base", "read-where-held", false),
        ("carried-more", "base", false),
        ("base", "carried-more", true),
        ("unaudited", "base", false),
        ("base", "unaudited", true),
        ("opened", "base", false),
        ("opened", "opened", true),
        ("nowhere", "base", true),
        ("nowhere", "opened", true),
        ("base", "nowhere", false),
        ("base", "control", true),
        ("control", "base", false),
        ("control", "control", true),
        ("unknown", "unknown", true),
        ("unknown", "base", false),
        ("base", "unknown", false),
        ("unknown", "control", true),
    ] {
        assert_eq!(snapshot.no_less_strict(&class(of), &class(than)), want, "{of} than {than}");
    }
    let none = PolicySnapshot::none();
    assert!(none.no_less_strict(&class("x"), &class("x")) && !none.no_less_strict(&class("x"), &class("y")));
}

/// What is wrong with a text, one fault a line.
fn faults(text: &str, now_ms: u64, want: Expect) {
    let errors = Policy::parse_for_signing(text, now_ms).expect_err(text);
    want.assert_eq(&errors.0.iter().map(|error| format!("{error}\n")).collect::<String>());
}

#[test]
fn every_fault_is_named_at_once_with_its_line() {
    faults(
        r#"version = 0
colour = "blue"
[jurisdictions]
eu = ["eu-central", "eu-central", "EU", 7]
all = ["all"]
us = "us-east"
[classes.personal]
hold = ["eu-centrall", "jurisdiction:uk", "eu-central", "eu-central"]
read = ["all", "eu-central"]
audit_reads = "yes"
copy = []
[classes.control]
hold = []
[classes.Bad]
[[exceptions]]
class = "inventory"
from = "mars"
to = "jurisdiction:eu"
reason = " "
expires = "2031-07-31T00:00:00Z"
[[exceptions]]
class = "personal"
from = 7
expires = 2031-07-31
"#,
        0,
        expect![[r#"
            line 1, column 11: version: write a whole number from 1, such as 1
            line 2, column 1: colour is not known here: use version, jurisdictions, classes, exceptions
            line 4, column 21: jurisdictions.eu: region "eu-central" stands twice
            line 4, column 35: jurisdictions.eu: "EU" is not a valid region name: use 1 to 63 characters of a-z, 0-9, '-' and begin and end with a letter or digit
            line 4, column 41: jurisdictions.eu: write a text in quotes
            line 5, column 1: jurisdictions.all: use a-z, 0-9 and '-' for its name, and not "all"
            line 5, column 8: jurisdictions.all: "all" would mean every region: name it otherwise
            line 6, column 6: jurisdictions.us: write a list such as ["eu-central"]
            line 7, column 1: classes.personal.carry is missing
            line 8, column 9: classes.personal.hold: region eu-centrall stands in no jurisdiction: add it to one
            line 8, column 24: classes.personal.hold: there is no jurisdiction "uk": the file has all, eu, us
            line 8, column 57: classes.personal.hold: "eu-central" stands twice
            line 9, column 9: classes.personal.read: "all" stands alone or not at all
            line 10, column 15: classes.personal.audit_reads: write true or false
            line 11, column 1: classes.personal.copy is not known here: use hold, read, carry, audit_reads
            line 12, column 10: classes.control: the mesh's own class is always allowed and has no rule: take it out
            line 14, column 10: classes.Bad: "Bad" is not a valid data class: use 1 to 63 characters of a-z, 0-9, '-' and begin and end with a letter or digit
            line 16, column 9: exceptions[0].class: there is no [classes.inventory] in this file
            line 17, column 8: exceptions[0].from: region mars stands in no jurisdiction: add it to one
            line 19, column 10: exceptions[0].reason: say why the way is open
            line 20, column 11: exceptions[0].expires: write an RFC 3339 date-time with its offset and without quotes, such as 2031-07-31T00:00:00Z
            line 21, column 1: exceptions[1].reason is missing
            line 21, column 1: exceptions[1].to is missing
            line 23, column 8: exceptions[1].from: write a text in quotes
            line 24, column 11: exceptions[1].expires: write an RFC 3339 date-time with its offset and without quotes, such as 2031-07-31T00:00:00Z
        "#]],
    );
}

#[test]
fn syntax_and_missing_parts_are_faults_too() {
    faults(
        "",
        0,
        expect![[r#"
        line 1, column 1: jurisdictions is missing
        line 1, column 1: version is missing
    "#]],
    );
    faults(
        "version = 1\nversion = 2\n[jurisdictions]\na = [\"a\"]\n",
        0,
        expect![[r#"
        line 2, column 1: duplicate key
    "#]],
    );
    faults(
        "version = \n[jurisdictions\na = [\"a\"]\n",
        0,
        expect![[r#"
        line 1, column 11: string values must be quoted, expected literal string
        line 2, column 15: unclosed table, expected `]`
    "#]],
    );
    faults(
        "version = 1\nclasses = 3\nexceptions = 4\njurisdictions = {}\n",
        0,
        expect![[r#"
        line 2, column 11: classes: write a table
        line 3, column 14: exceptions: write each as a table under [[exceptions]]
        line 4, column 17: jurisdictions: name at least one, such as eu = ["eu-central"]
    "#]],
    );
    faults(
        &" ".repeat(MAX_POLICY_BYTES + 1),
        0,
        expect![[r#"
        line 1, column 1: the file has 1048577 bytes: at most 1048576 are read
    "#]],
    );
}

#[test]
fn an_exception_that_has_ended_cannot_be_signed_but_does_not_stop_a_node() {
    assert!(Policy::parse_for_signing(POLICY, END_MS - 1).is_ok());
    faults(
        POLICY,
        END_MS,
        expect![[r#"
        line 25, column 11: exceptions[0].expires: ended at 2031-07-31T00:00:00Z, and it is 2031-07-31T00:00:00Z: renew it or take it out
    "#]],
    );
    let policy = Policy::parse(POLICY).expect("still a policy");
    assert_eq!(policy.exceptions[0].expires_ms, END_MS);
}

#[test]
fn two_exceptions_for_one_way_are_a_fault() {
    let one =
        "[[exceptions]]\nclass=\"c\"\nfrom=\"a\"\nto=\"b\"\nreason=\"r\"\nexpires=2031-07-31T00:00:00Z\n";
    let head = "version = 1\n[jurisdictions]\nj = [\"a\", \"b\"]\n[classes.c]\nhold=[]\nread=[]\ncarry=[]\n";
    assert!(Policy::parse(&format!("{head}{one}")).is_ok());
    faults(
        &format!("{head}{one}{one}"),
        0,
        expect![[r#"
        line 14, column 1: exceptions[1]: class, from and to are those of exceptions[0]: keep one
    "#]],
    );
}

fn key(byte: u8) -> OperatorKey {
    OperatorKey::from_seed([byte; 32])
}

fn accept(keys: &[&OperatorKey]) -> OperatorKeys {
    keys.iter().map(|key| key.public()).collect()
}

#[test]
fn a_policy_counts_only_when_an_accepted_key_signed_these_very_bytes() {
    let (old, new, stranger) = (key(1), key(2), key(3));
    let both = accept(&[&old, &new]);
    for signer in [&old, &new] {
        let taken = SignedPolicy::verify(POLICY.as_bytes(), &signer.sign(POLICY.as_bytes()), &both);
        let taken = taken.expect("both keys are accepted while they rotate");
        assert_eq!((taken.policy.version, taken.signed_by), (3, signer.public().id()));
    }
    let refused = |bytes: &str, signature: &str, keys: &OperatorKeys| {
        SignedPolicy::verify(bytes.as_bytes(), signature, keys).expect_err("not signed").to_string()
    };
    let by_old = old.sign(POLICY.as_bytes());
    let changed = POLICY.replace("us-east", "us-south");
    let unknown = refused(POLICY, &stranger.sign(POLICY.as_bytes()), &both);
    assert!(unknown.contains(&format!("operator key {}, which is not accepted", stranger.public().id())));
    assert!(refused(&changed, &by_old, &both).contains("changed after it was signed"));
    assert!(refused(POLICY, &by_old, &accept(&[&new])).contains("settings accept "));
    assert!(refused(POLICY, &by_old, &OperatorKeys::default()).contains("accept no operator key"));
    // The stranger's signature under the accepted key's name.
    let renamed = stranger
        .sign(POLICY.as_bytes())
        .replace(&stranger.public().id().to_string(), &old.public().id().to_string());
    assert!(refused(POLICY, &renamed, &both).contains("changed after it was signed"));
}

#[test]
fn a_malformed_signature_file_is_refused_by_line() {
    let signer = key(1);
    let good = signer.sign(b"x");
    for (bad, line) in [
        (String::new(), 1),
        (good.replace("-v1", "-v2"), 1),
        (good.replace("key ", "key 0"), 2),
        (good.replace("signature ", "sig "), 3),
        (good.replace("signature ", "signature zz"), 3),
        (good.trim_end()[..good.len() - 3].to_owned(), 3),
        (good.clone() + "more\n", 4),
    ] {
        let error = SignedPolicy::verify(b"x", &bad, &accept(&[&signer])).expect_err("malformed");
        assert!(error.to_string().contains(&format!("line {line} should be")), "{bad:?}: {error}");
    }
}

#[test]
fn signed_text_with_faults_is_refused_as_text() {
    let signer = key(1);
    for bytes in [&b"version = 0\n"[..], b"version = 1\n\xff"] {
        let verdict = SignedPolicy::verify(bytes, &signer.sign(bytes), &accept(&[&signer]));
        assert!(matches!(verdict, Err(PolicyRejected::Text(_))), "{verdict:?}");
    }
}

#[test]
fn keys_read_back_what_they_write() {
    let signer = key(7);
    assert_eq!(signer.public().to_string().parse::<OperatorPublicKey>(), Ok(signer.public()));
    let again = OperatorKey::from_pkcs8(&signer.to_pkcs8()).expect("its own document");
    assert_eq!(again.public(), signer.public());
    // Version 2 documents, with the public half, are what ring writes.
    let rng = ring::rand::SystemRandom::new();
    let document = ring::signature::Ed25519KeyPair::generate_pkcs8(&rng).expect("entropy");
    let theirs = OperatorKey::from_pkcs8(document.as_ref()).expect("ring's document");
    assert!(
        SignedPolicy::verify(POLICY.as_bytes(), &theirs.sign(POLICY.as_bytes()), &accept(&[&theirs])).is_ok()
    );
    assert!(OperatorKey::from_pkcs8(b"nonsense").is_err());
    assert!("abc".parse::<OperatorPublicKey>().is_err());
    assert!(!format!("{signer:?}").contains("0707"), "a secret is not printed");
}

#[test]
fn signatures_never_change() {
    // Ed25519 is deterministic; a change here means that no node takes the policies signed before.
    let signer = key(7);
    expect![[r#"
        ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c
        rhumb-policy-signature-v1
        key fe812c12f3ab4ce6
        signature 25163557c9a1f7874407d4769b58863b6325e20f89319850c42d18877b3e73d09893594763791a342f73c05d4ab291848faf2d3957ceefe0c95df596d9d5d50b
    "#]].assert_eq(&format!("{}\n{}", signer.public(), signer.sign(b"version = 1\n")));
}

proptest! {
    /// Cuts a piece out of a good policy and puts something else in its place.
    #[test]
    fn no_text_makes_the_parser_panic(from in 0..POLICY.len(), length in 0..40usize, put in "\\PC{0,12}") {
        let to = (from + length).min(POLICY.len());
        let text = format!("{}{put}{}", &POLICY[..from], &POLICY[to..]);
        match Policy::parse(&text) {
            Ok(policy) => prop_assert!(policy.version > 0),
            Err(errors) => {
                prop_assert!(!errors.0.is_empty());
                prop_assert!(errors.0.iter().all(|error| error.line <= text.matches('\n').count() + 1));
            }
        }
    }
}

/// A policy of three regions in which each class may be put to each use where its bits say.
fn drawn(classes: &[(u8, u8, u8, bool)], exceptions: &[(usize, usize, usize)]) -> PolicySnapshot {
    let places = |bits: u8| {
        let names = ["a", "b", "c"].iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
        names.map(|(_, name)| format!("{name:?}")).collect::<Vec<_>>().join(", ")
    };
    let mut text = "version = 1\n[jurisdictions]\nj = [\"a\", \"b\", \"c\"]\n".to_owned();
    for (at, (hold, read, carry, audit)) in classes.iter().enumerate() {
        let (hold, read, carry) = (places(*hold), places(*read), places(*carry));
        text += &format!(
            "[classes.k{at}]\nhold = [{hold}]\nread = [{read}]\ncarry = [{carry}]\naudit_reads = {audit}\n"
        );
    }
    let mut meant = std::collections::BTreeSet::new();
    for (of, from, to) in exceptions.iter().filter(|exception| meant.insert(**exception)) {
        let [from, to] = [from, to].map(|at| ["a", "b", "c"][*at]);
        text += &format!(
            "[[exceptions]]\nclass = \"k{of}\"\nfrom = \"{from}\"\nto = \"{to}\"\nreason = \"r\"\nexpires = 2031-07-31T00:00:00Z\n"
        );
    }
    let mesh = ["a", "b", "c"].map(region);
    PolicySnapshot::compile(Policy::parse(&text).expect("a good policy"), &mesh, 1_000)
}

proptest! {
    /// What is learnt under a class may go on under a stricter one: nothing may come of it that may not
    /// come of the first.
    #[test]
    fn where_a_class_is_no_less_strict_every_way_it_has_the_other_has_too(
        classes in proptest::collection::vec((0u8..8, 0u8..8, 0u8..8, any::<bool>()), 3),
        exceptions in proptest::collection::vec((0..3usize, 0..3usize, 0..3usize), 0..3),
    ) {
        let snapshot = drawn(&classes, &exceptions);
        let kinds = ["k0", "k1", "k2", "control"].map(class);
        let regions = ["a", "b", "c"].map(region);
        for (of, than) in kinds.iter().flat_map(|of| kinds.iter().map(move |than| (of, than))) {
            if !snapshot.no_less_strict(of, than) {
                continue;
            }
            for (from, to) in regions.iter().flat_map(|from| regions.iter().map(move |to| (from, to))) {
                let passes = |class| {
                    let direction = Direction::Egress;
                    snapshot.check(Passage { direction, class, from, to }).is_ok()
                };
                prop_assert!(!passes(of) || passes(than), "{} {} {} {}", of, than, from, to);
            }
            for place in &regions {
                let holds = |class| snapshot.permits(place, Use::Hold, class).is_ok();
                prop_assert!(!holds(of) || holds(than), "{} {} in {}", of, than, place);
            }
            prop_assert!(snapshot.audits_reads(of) || !snapshot.audits_reads(than));
            for further in kinds.iter().filter(|further| snapshot.no_less_strict(than, further)) {
                prop_assert!(snapshot.no_less_strict(of, further), "{} {} {}", of, than, further);
            }
        }
    }
}
