//! Whose signatures suffice.

use rhumb_verify::Policy;
use rhumb_verify::note::{Algorithm, Note};
use rhumb_verify::policy::Distrusted;

use crate::{checkpoint, leaves, log, signer, witness};

/// The specification's example, with our keys.
fn example() -> String {
    let witness = |name: &str| format!("witness {name} {}\n", witness(&format!("{name}.example")).key());
    let names = ["X1", "X2", "X3", "Y1", "Y2", "Y3"];
    let witnesses: String = names.into_iter().map(witness).collect();
    format!(
        "# who watches\nlog {} example.com/log\n\n{witnesses}group X-witnesses 2 X1 X2 X3\n\
         \tgroup Y-witnesses any Y1 Y2 Y3\ngroup X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n",
        log().key()
    )
}

fn cosigned(names: &[&str]) -> Note {
    let names: Vec<_> = names.iter().map(|name| format!("{name}.example")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    checkpoint(&leaves(3), &names, &[])
}

#[test]
fn a_checkpoint_is_trusted_with_a_quorum_and_not_without() {
    let policy = Policy::parse(&example()).expect("a policy");
    for enough in [&["X1", "X2", "Y1"][..], &["X3", "X2", "Y3"], &["X1", "X2", "X3", "Y1", "Y2", "Y3", "Z"]] {
        policy.trusts(&cosigned(enough)).expect("a quorum");
    }
    for few in [&[][..], &["X1", "X2", "X3"], &["X1", "Y1", "Y2", "Y3"], &["X1", "X1", "Y1"]] {
        assert!(matches!(policy.trusts(&cosigned(few)), Err(Distrusted::NoQuorum { .. })), "{few:?}");
    }
}

#[test]
fn the_log_itself_has_to_have_signed_and_a_forged_cosignature_condemns() {
    let policy = Policy::parse(&example()).expect("a policy");
    let mut unsigned = cosigned(&["X1", "X2", "Y1"]);
    let log = unsigned.signatures.remove(0);
    assert!(matches!(policy.trusts(&unsigned), Err(Distrusted::NotTheLog(_))));
    let mut forged = cosigned(&["X1", "X2", "Y1", "Y2"]);
    forged.signatures[4].bytes[20] ^= 1;
    assert!(matches!(policy.trusts(&forged), Err(Distrusted::Forged(_))));
    // A log witness's time is signed too.
    let mut dated = cosigned(&["X1", "X2", "Y1"]);
    dated.signatures[1].bytes[7] ^= 1;
    assert!(matches!(policy.trusts(&dated), Err(Distrusted::Forged(_))));
    let mut other = cosigned(&["X1", "X2", "Y1"]);
    other.text = other.text.replace("mesh.example/eu", "mesh.example/us");
    other.signatures[0] = log;
    assert!(matches!(policy.trusts(&other), Err(Distrusted::NotTheLog(_))), "another log's checkpoint");
}

#[test]
fn a_policy_that_cannot_be_names_its_line() {
    let key = witness("a.example").key().to_string();
    let log = signer("b.example", Algorithm::Ed25519).key().to_string();
    let cases = [
        ("quorum none\nquorum none", 2, "a second quorum"),
        ("", 0, "no quorum"),
        ("quorum a", 1, "no line before names"),
        (&format!("witness none {key}"), 1, "no name of its own"),
        (&format!("witness a {key}\nwitness b {key}"), 2, "another line too"),
        (&format!("witness a {log}"), 1, "another type"),
        (&format!("log {key}"), 1, "another type"),
        (&format!("witness a {key}\ngroup g 2 a"), 2, "1 to the number of members, 1"),
        (&format!("witness a {key}\ngroup g any a\ngroup h any a"), 3, "a member already"),
        (&format!("witness a {key}\ngroup g any"), 2, "number of members, 0"),
        (&format!("witness a {key}\ngroup a any a"), 2, "named twice"),
        ("log nonsense", 1, "no verifier key"),
        ("watch me", 1, "is expected"),
    ];
    for (text, line, why) in cases {
        let error = Policy::parse(text).expect_err(text);
        assert!(error.line == line && error.why.contains(why), "{text:?}: {error}");
    }
    Policy::parse("quorum none").expect("nobody need sign but a log");
}
