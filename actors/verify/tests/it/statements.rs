//! Quorum certificates.

use std::collections::BTreeSet;

use rhumb_verify::hash::sha256;
use rhumb_verify::note::{Algorithm, Key, Note, Signer};
use rhumb_verify::statement::{Certificate, NOTHING, NotCertified, NotNext, Statement};

use crate::signer;

const REGIONS: [&str; 3] = ["eu.example", "us.example", "ap.example"];

fn regions() -> Vec<Signer> {
    REGIONS.into_iter().map(|name| signer(name, Algorithm::Ed25519)).collect()
}

fn keys() -> Vec<Key> {
    regions().iter().map(|signer| signer.key().clone()).collect()
}

fn statement(number: u64, value: &str, previous: Option<&Statement>) -> Statement {
    Statement {
        mesh: "mesh-1".to_owned(),
        kind: "policy".to_owned(),
        subject: "residency".to_owned(),
        number,
        value: sha256(&[value.as_bytes()]),
        previous: previous.map_or(NOTHING, Statement::hash),
    }
}

fn signed(statement: &Statement, by: &[usize]) -> Note {
    let (text, regions) = (statement.to_string(), regions());
    let signatures = by.iter().map(|who| regions[*who].sign(&text, 0)).collect();
    Note { text, signatures }
}

fn certified(statement: &Statement, by: &[usize]) -> Certificate {
    let note = Note::parse(&signed(statement, by).to_string()).expect("a note");
    Certificate::check(note, &keys(), 2).expect("enough")
}

#[test]
fn enough_regions_make_a_certificate_and_fewer_do_not() {
    let first = statement(1, "a", None);
    assert_eq!(
        certified(&first, &[0, 2]).signed,
        BTreeSet::from(["ap.example", "eu.example"].map(String::from))
    );
    for few in [&[][..], &[1], &[1, 1]] {
        let checked = Certificate::check(signed(&first, few), &keys(), 2);
        assert!(matches!(checked, Err(NotCertified::TooFew { need: 2, .. })), "{few:?}");
    }
    let twice = [keys(), vec![Key { name: "alias.example".to_owned(), ..keys()[0].clone() }]].concat();
    let alias = Signer::new("alias.example", Algorithm::Ed25519, pair("eu.example"));
    let mut note = signed(&first, &[0]);
    note.signatures.push(alias.sign(&note.text, 0));
    assert!(Certificate::check(note, &twice, 2).is_err(), "one key under two names is one region");
    let mut forged = signed(&first, &[0, 1]);
    forged.text = forged.text.replace("\n1\n", "\n2\n");
    assert!(matches!(Certificate::check(forged, &keys(), 2), Err(NotCertified::Forged(_))));
}

fn pair(name: &str) -> ring::signature::Ed25519KeyPair {
    ring::signature::Ed25519KeyPair::from_seed_unchecked(&sha256(&[name.as_bytes()]).0).expect("32 bytes")
}

#[test]
fn a_chain_of_certificates_is_followed_and_a_fork_names_who_lied() {
    let one = statement(1, "a", None);
    let two = statement(2, "b", Some(&one));
    let (first, second) = (certified(&one, &[0, 1]), certified(&two, &[1, 2]));
    assert_eq!(second.follows(&first), Ok(()));
    assert_eq!(first.follows(&second), Err(NotNext::Number { last: 2, got: 1 }));
    assert_eq!(second.follows(&second), Err(NotNext::Number { last: 2, got: 2 }));
    let other = certified(&statement(2, "c", Some(&one)), &[0, 1]);
    assert_eq!(
        other.follows(&second),
        Err(NotNext::Forked { number: 2, liars: vec!["us.example".to_owned()] })
    );
    let astray = certified(&statement(3, "d", Some(&one)), &[0, 1]);
    assert_eq!(astray.follows(&second), Err(NotNext::Previous));
    let elsewhere = Statement { subject: "classes".to_owned(), ..statement(3, "d", Some(&two)) };
    assert_eq!(certified(&elsewhere, &[0, 1]).follows(&second), Err(NotNext::OtherChain));
}

#[test]
fn a_statement_is_read_as_it_is_written_and_nothing_else_is() {
    let one = statement(7, "a", None);
    let text = one.to_string();
    assert_eq!(text.parse(), Ok(one));
    for wrong in [
        text.replace("statement/1", "statement/2"),
        text.replace("mesh-1", ""),
        text.replace("policy residency", "policy"),
        text.replace("\n7\n", "\n07\n"),
        text.trim_end().to_owned(),
        format!("{text}more\n"),
        text.replace("=\n", "\n"),
    ] {
        assert!(wrong.parse::<Statement>().is_err(), "{wrong:?}");
    }
}
