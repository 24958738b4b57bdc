//! A node is given another certificate, or learns that one was revoked, while it runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::Connection;
use quinn::crypto::rustls::QuicServerConfig;
use rhumb_core::{NodeId, Principal, Role};
use rhumb_transport::identity::Serial;
use rhumb_transport::issue::{Authority, IssuedCert, Validity};
use rhumb_transport::{
    Certificate, Client, ConnectError, Credentials, CredentialsError, Expect, IdentityError, Trust,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use crate::mesh::{
    CLUSTER, Member, SOON, authority, hour, identity_of, inventory, node, reply, request, settings,
};
use crate::raw::Raw;

fn issue(authority: &Authority, role: Role, id: &NodeId) -> IssuedCert {
    let who = Principal { role, region: id.region.clone(), name: id.name.to_string() };
    authority.issue(&who, hour()).expect("issued")
}

fn certified(id: &NodeId, by: &IssuedCert) -> Member {
    Member::with(&by.credentials().expect("usable"), identity_of(id), settings())
}

/// The serial number of the certificate that the other side showed.
fn shown(connection: &Connection) -> Serial {
    let chain = connection.peer_identity().expect("verified");
    let chain = chain.downcast::<Vec<CertificateDer<'static>>>().expect("a chain");
    Certificate::read(&chain[0]).expect("readable").serial
}

/// The same credentials, with these certificates revoked.
fn revoking(authority: &Authority, of: &IssuedCert, revoked: &[&IssuedCert]) -> Credentials {
    let revoked: BTreeMap<Serial, i64> =
        revoked.iter().map(|issued| (issued.certificate.serial.clone(), 0)).collect();
    let list = authority.revocations(1, &revoked, hour().not_before).expect("signed");
    let trust = Trust::from_pem(authority.certificate_pem().as_bytes(), Some(list.as_bytes()));
    of.credentials().expect("usable").believing(trust.expect("trust"))
}

/// Waits until a node is connected with its peer for this time in a row.
async fn generation(member: &Member, wanted: u64) {
    let came = tokio::time::timeout(SOON, async {
        while member.transport.links()[0].generation != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    came.await.unwrap_or_else(|_| panic!("connection {wanted}: {:?}", member.transport.links()));
}

/// The serial number that a node's peer showed.
fn shown_to(member: &Member) -> Serial {
    member.transport.links()[0].certificate.as_ref().expect("connected").serial.clone()
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_on_a_new_connection_and_calls_under_way_end_on_the_old_one() {
    // Whoever renews, and whoever had dialled.
    for dialled_by_who_renews in [false, true] {
        let ca = authority();
        let b = node("eu-central/n1");
        let (old, new) = (issue(&ca, Role::Node, &b), issue(&ca, Role::Node, &b));
        let (one, two) = (Member::start(&ca, "us-east/n1"), certified(&b, &old));
        if dialled_by_who_renews {
            two.join(&one).await
        } else {
            one.join(&two).await
        }
        assert_eq!(shown_to(&one), old.certificate.serial);
        let (transport, to) = (one.transport.clone(), b.clone());
        let call = tokio::spawn(async move { transport.ask(&to, 1, request("hold", b"")).await });
        two.handlers.until("the call", |seen| seen.held.len() == 1).await;
        let closed = two.transport.renew(&new.credentials().expect("usable")).expect("the same node");
        assert_eq!(closed, 0);
        generation(&one, 2).await;
        generation(&two, 2).await;
        assert_eq!(shown_to(&one), new.certificate.serial);
        one.ask(&two, "echo", b"on the new one").await.expect("answered");
        two.ask(&one, "echo", b"and back").await.expect("answered");

        let answer = two.handlers.seen.lock().held.remove(0);
        answer.reply(reply(inventory(), Bytes::from_static(b"late"), Default::default()));
        let answered = call.await.expect("no panic").expect("a call under way is answered");
        assert_eq!(answered.body, Bytes::from_static(b"late"));
        for member in [&one, &two] {
            assert!(member.handlers.seen.lock().disconnected.is_empty(), "{} noticed nothing", member.id);
        }
    }
}

#[tokio::test]
async fn messages_of_one_pair_keep_their_order_while_connections_take_over_from_each_other() {
    let ca = authority();
    let a = node("us-east/n1");
    let (one, two) = (certified(&a, &issue(&ca, Role::Node, &a)), Member::start(&ca, "eu-central/n1"));
    one.join(&two).await;
    let (mut told, mut renewed) = (0_u32, 0);
    // Until four connections have followed each other, each while messages were on their way.
    while one.transport.links()[0].generation < 4 || told % 500 != 0 {
        one.transport.tell(&two.id, 7, request("note", &told.to_be_bytes())).expect("told");
        told += 1;
        let generation = one.transport.links()[0].generation;
        if told % 100 == 50 && renewed < generation && generation < 4 {
            renewed = generation;
            let new = issue(&ca, Role::Node, &a).credentials().expect("usable");
            one.transport.renew(&new).expect("the same node");
        }
        if told % 20 == 19 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(told < 200_000, "they do not take over: {:?}", one.transport.links());
    }
    let all = |seen: &mut crate::mesh::Seen| seen.requests.len() == told as usize;
    two.handlers.until("all of them", all).await;
    let seen = two.handlers.seen.lock();
    let numbers = seen.requests.iter().map(|(_, r)| u32::from_be_bytes(r.body[..].try_into().expect("four")));
    assert!(numbers.eq(0..told), "each once, in the order in which they were told");
    assert!(seen.disconnected.is_empty());
}

#[tokio::test]
async fn who_does_not_know_how_to_dial_anew_keeps_its_connection() {
    let ca = authority();
    let b = node("eu-central/n1");
    let (old, new) = (issue(&ca, Role::Node, &b), issue(&ca, Role::Node, &b));
    let two = certified(&b, &old);
    let raw = Raw::new(&ca, Some("before"), b"rhumb/1");
    let (before, _send, _receive) = raw.greet(two.addr(), &b).await;
    two.transport.renew(&new.credentials().expect("usable")).expect("the same node");
    let raw = Raw::new(&ca, Some("after"), b"rhumb/1");
    let (after, _send, _receive) = raw.greet(two.addr(), &b).await;
    assert_eq!(shown(&after), new.certificate.serial, "a new connection is shown the new one");
    assert!(before.close_reason().is_none(), "an established connection stays");
    assert_eq!(shown(&before), old.certificate.serial);
}

#[tokio::test]
async fn a_peer_that_refuses_the_new_certificate_keeps_the_old_connection_and_says_why() {
    let (ca, stranger) = (authority(), authority());
    let b = node("eu-central/n1");
    let own = issue(&ca, Role::Node, &b);
    let (one, two) = (Member::start(&ca, "us-east/n1"), certified(&b, &own));
    two.join(&one).await;
    let both = format!("{}{}", ca.certificate_pem(), stranger.certificate_pem());
    let trust = Trust::from_pem(both.as_bytes(), None).expect("trust");
    let foreign = issue(&stranger, Role::Node, &b).credentials().expect("usable").believing(trust.clone());
    two.transport.renew(&foreign).expect("the same node");
    let refused = |seen: &mut crate::mesh::Seen| {
        seen.refused.contains(&ConnectError::Identity(IdentityError::UnknownAuthority))
    };
    one.handlers.until("it is turned away", refused).await;
    let told = tokio::time::timeout(SOON, async {
        while two.transport.links()[0].last_error.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    told.await.expect("it is told why");
    let why = two.transport.links()[0].last_error.clone();
    assert_eq!(why, Some(ConnectError::IdentityRefused(IdentityError::UnknownAuthority)));
    two.ask(&one, "echo", b"over the old one").await.expect("calls go on");
    // Back to what it had: the error goes with it.
    two.transport.renew(&own.credentials().expect("usable").believing(trust)).expect("the same node");
    generation(&two, 2).await;
    assert_eq!(two.transport.links()[0].last_error, None);
}

#[tokio::test]
async fn a_connection_ends_with_the_certificate_of_its_peer() {
    let ca = authority();
    let (a, b) = (node("us-east/n1"), node("eu-central/n1"));
    let soon = Validity::for_the_next(Duration::from_secs(3));
    let who = Principal { role: Role::Node, region: b.region.clone(), name: b.name.to_string() };
    let short = ca.issue(&who, soon).expect("issued");
    let (one, two) = (certified(&a, &issue(&ca, Role::Node, &a)), certified(&b, &short));
    two.join(&one).await;
    let gone = |seen: &mut crate::mesh::Seen| !seen.disconnected.is_empty();
    one.handlers.until("its time has passed", gone).await;
    let refused =
        |seen: &mut crate::mesh::Seen| seen.refused.contains(&ConnectError::Identity(IdentityError::Expired));
    one.handlers.until("it is turned away when it dials again", refused).await;
}

#[tokio::test]
async fn connections_of_an_authority_that_is_not_believed_any_more_are_closed() {
    let (old, new) = (authority(), authority());
    let both = format!("{}{}", old.certificate_pem(), new.certificate_pem());
    let trusting = |pem: &str| Trust::from_pem(pem.as_bytes(), None).expect("trust");
    let (a, b, c) = (node("us-east/n1"), node("eu-central/n1"), node("ap-southeast/n1"));
    let certificates = [(&a, &new), (&b, &old), (&c, &new)].map(|(id, by)| issue(by, Role::Node, id));
    let credentials = |n: usize| certificates[n].credentials().expect("usable").believing(trusting(&both));
    let [one, two, three] =
        [(&a, 0), (&b, 1), (&c, 2)].map(|(id, n)| Member::with(&credentials(n), identity_of(id), settings()));
    two.join(&one).await;
    three.join(&one).await;
    let retired = credentials(0).believing(trusting(new.certificate_pem()));
    assert_eq!(one.transport.renew(&retired), Ok(1), "the one of the old authority");
    two.handlers.until("it is closed", |seen| !seen.disconnected.is_empty()).await;
    three.ask(&one, "echo", b"still here").await.expect("the other notices nothing");
    assert_eq!(three.transport.links()[0].generation, 1);
}

/// A listener that tells which certificate whoever dials it shows.
fn listener(authority: &Authority, id: &NodeId) -> quinn::Endpoint {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).expect("a certificate");
    roots.add(ca).expect("an authority");
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let pem = issue(authority, Role::Node, id).identity_pem;
    let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key");
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(clients.build().expect("a verifier"))
        .with_single_cert(chain, key)
        .expect("a pair");
    tls.alpn_protocols = vec![b"rhumb/1".to_vec()];
    let crypto = QuicServerConfig::try_from(tls).expect("TLS 1.3");
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    quinn::Endpoint::server(config, "127.0.0.1:0".parse().expect("an address")).expect("bound")
}

#[tokio::test]
async fn a_node_dials_with_its_new_certificate() {
    let ca = authority();
    let (a, b) = (node("us-east/n1"), node("eu-central/n1"));
    let (old, new) = (issue(&ca, Role::Node, &a), issue(&ca, Role::Node, &a));
    let one = certified(&a, &old);
    let endpoint = listener(&ca, &b);
    one.transport.add_peer(b, endpoint.local_addr().expect("bound"));
    let dialled = async || {
        let incoming = tokio::time::timeout(SOON, endpoint.accept()).await.expect("dialled");
        incoming.expect("the endpoint lives").await.expect("connected")
    };
    let first = dialled().await;
    assert_eq!(shown(&first), old.certificate.serial);
    one.transport.renew(&new.credentials().expect("usable")).expect("the same node");
    first.close(0u32.into(), b"again, please");
    assert_eq!(shown(&dialled().await), new.certificate.serial);
}

#[tokio::test]
async fn a_client_dials_again_with_its_new_certificate() {
    let ca = authority();
    let (b, c) = (node("eu-central/n1"), node("us-east/app"));
    let (old, new) = (issue(&ca, Role::Client, &c), issue(&ca, Role::Client, &c));
    let own = issue(&ca, Role::Node, &b);
    let member = certified(&b, &own);
    let credentials = old.credentials().expect("usable");
    let client = Client::connect(member.addr(), Expect::AnyNode, &credentials, Some(CLUSTER), settings());
    let client = client.await.expect("connected");
    client.renew(&new.credentials().expect("usable")).expect("the same client");
    let closed = member.transport.renew(&revoking(&ca, &own, &[&old])).expect("the same node");
    assert_eq!(closed, 1, "the certificate of the first connection is revoked");
    let answered = tokio::time::timeout(SOON, async {
        while client.ask(request("echo", b"again")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    answered.await.expect("the new certificate is not revoked");
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_refused_and_nothing_changes() {
    let ca = authority();
    let b = node("eu-central/n1");
    let own = issue(&ca, Role::Node, &b);
    let member = certified(&b, &own);
    for other in [issue(&ca, Role::Node, &node("eu-central/n2")), issue(&ca, Role::Client, &b)] {
        let refused = member.transport.renew(&other.credentials().expect("usable"));
        assert!(matches!(refused, Err(CredentialsError::Somebody { .. })), "{refused:?}");
    }
    let raw = Raw::new(&ca, Some("app"), b"rhumb/1");
    let (connection, _send, _receive) = raw.greet(member.addr(), &b).await;
    assert_eq!(shown(&connection), own.certificate.serial);
}

#[tokio::test]
async fn connections_of_a_revoked_certificate_are_closed_and_no_others() {
    let ca = authority();
    let (a, b, c) = (node("us-east/n1"), node("eu-central/n1"), node("ap-southeast/n1"));
    let certificates = [&a, &b, &c].map(|id| issue(&ca, Role::Node, id));
    let [one, two, three] = [(&a, 0), (&b, 1), (&c, 2)].map(|(id, n)| certified(id, &certificates[n]));
    two.join(&one).await;
    three.join(&one).await;
    let app = issue(&ca, Role::Client, &node("us-east/app"));
    let dial = async || {
        let credentials = app.credentials().expect("usable");
        Client::connect(one.addr(), Expect::AnyNode, &credentials, Some(CLUSTER), settings()).await
    };
    let client = dial().await.expect("connected");
    let (transport, to) = (two.transport.clone(), a.clone());
    let call = tokio::spawn(async move { transport.ask(&to, 1, request("hold", b"")).await });
    one.handlers.until("the call", |seen| seen.held.len() == 1).await;

    let next = revoking(&ca, &certificates[0], &[&certificates[1], &app]);
    assert_eq!(one.transport.renew(&next), Ok(2), "the node's and the client's");
    let fault = call.await.expect("no panic").expect_err("its connection is gone");
    assert_eq!(fault.delivery(), rhumb_core::Delivery::Unknown, "{fault}");
    let refused =
        |seen: &mut crate::mesh::Seen| seen.refused.contains(&ConnectError::Identity(IdentityError::Revoked));
    one.handlers.until("the revoked node is turned away when it dials again", refused).await;
    let told = tokio::time::timeout(SOON, async {
        loop {
            match two.transport.links()[0].last_error.clone() {
                Some(ConnectError::IdentityRefused(why)) => return why,
                _ => tokio::task::yield_now().await,
            }
        }
    });
    assert_eq!(told.await.expect("it is told why"), IdentityError::Revoked);
    let turned_away = dial().await.expect_err("its certificate is revoked");
    assert_eq!(turned_away, ConnectError::IdentityRefused(IdentityError::Revoked));
    drop(client);

    three.ask(&one, "echo", b"still here").await.expect("the others notice nothing");
    assert_eq!(three.transport.links()[0].generation, 1);
}

#[tokio::test]
async fn a_revoked_node_is_not_spoken_to_by_who_dials_it() {
    let ca = authority();
    let (a, b) = (node("us-east/n1"), node("eu-central/n1"));
    let (own, other) = (issue(&ca, Role::Node, &a), issue(&ca, Role::Node, &b));
    let (one, two) =
        (Member::with(&revoking(&ca, &own, &[&other]), identity_of(&a), settings()), certified(&b, &other));
    one.transport.add_peer(b, two.addr());
    let told = tokio::time::timeout(SOON, async {
        loop {
            match one.transport.links()[0].last_error.clone() {
                Some(error) => return error,
                None => tokio::task::yield_now().await,
            }
        }
    });
    assert_eq!(told.await.expect("it is told why"), ConnectError::Identity(IdentityError::Revoked));
    two.handlers.until("the revoked node is told", |seen| !seen.refused.is_empty()).await;
    let refused = two.handlers.seen.lock().refused[0].clone();
    assert_eq!(refused, ConnectError::IdentityRefused(IdentityError::Revoked));
}

#[tokio::test]
async fn nodes_of_two_authorities_talk_while_one_takes_over_from_the_other() {
    let (old, new) = (authority(), authority());
    let both = format!("{}{}", old.certificate_pem(), new.certificate_pem());
    // The old authority has revoked something, the new one never anything.
    let list = old.revocations(1, &BTreeMap::new(), hour().not_before).expect("signed");
    let member = |by: &Authority, id: &str| {
        let trust = Trust::from_pem(both.as_bytes(), Some(list.as_bytes())).expect("trust");
        let credentials = issue(by, Role::Node, &node(id)).credentials().expect("usable").believing(trust);
        Member::with(&credentials, identity_of(&node(id)), settings())
    };
    let (one, two) = (member(&old, "us-east/n1"), member(&new, "eu-central/n1"));
    one.join(&two).await;
    one.ask(&two, "echo", b"one").await.expect("the old speaks to the new");
    two.transport.add_peer(one.id.clone(), one.addr());
    assert!(two.transport.connected(&one.id, Duration::from_secs(20)).await);
    two.ask(&one, "echo", b"two").await.expect("the new speaks to the old");
}
