//! Who is let in, and what both sides learn of it.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use rhumb_core::{ClusterId, NodeId, Region, Role};
use rhumb_transport::hello::Hello;
use rhumb_transport::issue::{Authority, Validity};
use rhumb_transport::{
    Client, ConnectError, Credentials, Expect, HelloRefusalKind, IdentityError, Regions, TransportSettings,
};
use tokio::task::JoinHandle;

use crate::mesh::{
    CLUSTER, Member, REGIONS, SOON, authority, credentials, hour, identity_of, node, region, request,
    settings,
};
use crate::raw::{Raw, alert, close_code, hello, say};

/// A node that two others rely on while somebody else is turned away.
struct Scene {
    authority: Authority,
    node: Member,
    friend: Member,
    call: JoinHandle<bool>,
}

impl Scene {
    async fn set() -> Self {
        let authority = authority();
        let (node, friend) =
            (Member::start(&authority, "us-east/n1"), Member::start(&authority, "eu-central/n1"));
        friend.join(&node).await;
        let (transport, to) = (friend.transport.clone(), node.id.clone());
        let call = tokio::spawn(async move { transport.ask(&to, 1, request("hold", b"")).await.is_ok() });
        node.handlers.until("the call", |seen| seen.held.len() == 1).await;
        Self { authority, node, friend, call }
    }

    /// A node that dials the scene's until it is told why not.
    async fn turned_away(&self, stranger: &Member) -> ConnectError {
        stranger.transport.add_peer(self.node.id.clone(), self.node.addr());
        let told = async {
            loop {
                if let Some(error) = stranger.transport.links()[0].last_error.clone() {
                    return error;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, told).await.expect("the stranger is told")
    }

    /// Waits until the node has reported a refusal, and checks that the friend noticed nothing.
    async fn refused(self) -> ConnectError {
        self.node.handlers.until("a refusal", |seen| !seen.refused.is_empty()).await;
        let answer = self.node.handlers.seen.lock().held.remove(0);
        answer.reply(crate::mesh::reply(crate::mesh::inventory(), bytes::Bytes::new(), Default::default()));
        assert!(self.call.await.expect("no panic"), "a call under way is still answered");
        let friend = &self.friend.transport.links()[0];
        assert_eq!(friend.generation, 1, "over the same connection");
        let refused = self.node.handlers.seen.lock().refused[0].clone();
        self.node.transport.close().await;
        refused
    }
}

fn stranger(credentials: &Credentials, id: &NodeId) -> Member {
    Member::with(credentials, identity_of(id), settings())
}

/// A certificate of one authority, in the hands of who believes in another.
fn mixed(of: &Authority, believes: &Authority, id: &NodeId) -> Credentials {
    let who =
        rhumb_core::Principal { role: Role::Node, region: id.region.clone(), name: id.name.to_string() };
    let mut issued = of.issue(&who, hour()).expect("issued");
    issued.authorities_pem = believes.certificate_pem().to_owned();
    issued.credentials().expect("usable")
}

#[tokio::test]
async fn a_peer_of_another_authority_is_refused_and_both_sides_know_why() {
    let scene = Scene::set().await;
    let (rogue, id) = (authority(), node("ap-southeast/n1"));
    let stranger = stranger(&mixed(&rogue, &scene.authority, &id), &id);
    let told = scene.turned_away(&stranger).await;
    assert_eq!(told, ConnectError::IdentityRefused(IdentityError::UnknownAuthority));
    assert_eq!(scene.refused().await, ConnectError::Identity(IdentityError::UnknownAuthority));
}

#[tokio::test]
async fn a_node_of_another_authority_is_not_spoken_to() {
    let scene = Scene::set().await;
    let (rogue, id) = (authority(), node("ap-southeast/n1"));
    let stranger = stranger(&mixed(&scene.authority, &rogue, &id), &id);
    let told = scene.turned_away(&stranger).await;
    assert_eq!(told, ConnectError::Identity(IdentityError::UnknownAuthority));
    assert_eq!(scene.refused().await, ConnectError::IdentityRefused(IdentityError::UnknownAuthority));
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_both_sides_know_why() {
    let scene = Scene::set().await;
    let begun = hour().not_before;
    let past = Validity {
        not_before: begun - Duration::from_secs(7200),
        not_after: begun - Duration::from_secs(3600),
    };
    let id = node("ap-southeast/n1");
    let stranger = stranger(&credentials(&scene.authority, Role::Node, &id, past), &id);
    let told = scene.turned_away(&stranger).await;
    assert_eq!(told, ConnectError::IdentityRefused(IdentityError::Expired));
    assert_eq!(scene.refused().await, ConnectError::Identity(IdentityError::Expired));
}

#[tokio::test]
async fn a_region_that_may_not_connect_is_refused_and_both_sides_know_why() {
    let scene = Scene::set().await;
    let id = node("mars/n1");
    let stranger = stranger(&credentials(&scene.authority, Role::Node, &id, hour()), &id);
    let told = scene.turned_away(&stranger).await;
    assert_eq!(told, ConnectError::IdentityRefused(IdentityError::Region("mars".into())));
    assert_eq!(scene.refused().await, ConnectError::Identity(IdentityError::Region("mars".into())));
}

#[tokio::test]
async fn a_node_whose_region_the_dialler_does_not_allow_is_not_spoken_to() {
    let scene = Scene::set().await;
    let id = node("ap-southeast/n1");
    let only_own = Regions::of([id.region.clone()]);
    let credentials = credentials(&scene.authority, Role::Node, &id, hour());
    let stranger = Member::allowing(only_own.clone(), &credentials, identity_of(&id), settings());
    let told = scene.turned_away(&stranger).await;
    assert_eq!(told, ConnectError::Identity(IdentityError::Region("us-east".into())));
    only_own.replace(REGIONS.map(region));
    assert!(stranger.transport.connected(&scene.node.id, SOON).await, "allowed from now on");
    assert!(matches!(scene.refused().await, ConnectError::IdentityRefused(IdentityError::Region(_))));
}

#[tokio::test]
async fn another_node_than_the_one_dialled_is_not_spoken_to() {
    let scene = Scene::set().await;
    let id = node("ap-southeast/n1");
    let stranger = stranger(&credentials(&scene.authority, Role::Node, &id, hour()), &id);
    let wanted = node("us-east/n2");
    stranger.transport.add_peer(wanted, scene.node.addr());
    scene.node.handlers.until("a refusal", |seen| !seen.refused.is_empty()).await;
    let told = stranger.transport.links()[0].last_error.clone();
    match told {
        Some(ConnectError::Identity(IdentityError::Name { expected, .. })) => {
            assert_eq!(expected, "n2.us-east.mesh.example");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(scene.refused().await, ConnectError::IdentityRefused(IdentityError::Invalid(_))));
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_refused_and_both_sides_know_why() {
    let scene = Scene::set().await;
    let raw = Raw::new(&scene.authority, None, b"rhumb/1");
    // A dialler counts itself as connected before its certificate was looked at.
    let told = match raw.connect(scene.node.addr(), &scene.node.id).await {
        Ok(connection) => connection.closed().await,
        Err(error) => error,
    };
    assert_eq!(alert(&told), Some(116), "certificate_required: {told}");
    assert_eq!(scene.refused().await, ConnectError::Identity(IdentityError::NoCertificate));
}

#[tokio::test]
async fn a_peer_that_speaks_another_application_protocol_is_refused() {
    let scene = Scene::set().await;
    let raw = Raw::new(&scene.authority, Some("c"), b"rhumb/2");
    let told = raw.connect(scene.node.addr(), &scene.node.id).await.expect_err("refused");
    assert_eq!(alert(&told), Some(120), "no_application_protocol: {told}");
    assert!(matches!(scene.refused().await, ConnectError::Protocol(_)));
}

#[tokio::test]
async fn a_peer_of_another_protocol_version_is_refused_and_both_sides_know_why() {
    let scene = Scene::set().await;
    let raw = Raw::new(&scene.authority, Some("c"), b"rhumb/1");
    let connection = raw.connect(scene.node.addr(), &scene.node.id).await.expect("connected");
    let (mut send, _receive) = connection.open_bi().await.expect("opened");
    let later = Hello { versions: (9, 12), ..hello() };
    say(&mut send, &later.to_bytes().expect("small")).await;
    let told = connection.closed().await;
    assert_eq!(close_code(&told), Some(HelloRefusalKind::Version as u64), "{told}");
    let ConnectError::Hello(refusal) = scene.refused().await else { panic!("refused by HELLO") };
    assert_eq!(refusal.kind, HelloRefusalKind::Version);
    assert!(refusal.detail.contains("9 to 12"), "{refusal}");
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_and_both_sides_know_why() {
    let scene = Scene::set().await;
    let id = node("ap-southeast/n1");
    let mut identity = identity_of(&id);
    identity.cluster = ClusterId(8);
    let credentials = credentials(&scene.authority, Role::Node, &id, hour());
    let stranger = Member::with(&credentials, identity, settings());
    let ConnectError::HelloRefused(told) = scene.turned_away(&stranger).await else { panic!("by HELLO") };
    let ConnectError::Hello(refused) = scene.refused().await else { panic!("by HELLO") };
    assert_eq!((told.kind, refused.kind), (HelloRefusalKind::Cluster, HelloRefusalKind::Cluster));
    assert_eq!(told.detail, refused.detail, "in the same words");
}

#[tokio::test]
async fn a_node_with_another_founding_list_is_refused_and_both_sides_know_why() {
    let scene = Scene::set().await;
    let id = node("ap-southeast/n1");
    let mut identity = identity_of(&id);
    identity.founding_hash = [2; 32];
    let credentials = credentials(&scene.authority, Role::Node, &id, hour());
    let stranger = Member::with(&credentials, identity, settings());
    let ConnectError::HelloRefused(told) = scene.turned_away(&stranger).await else { panic!("by HELLO") };
    let ConnectError::Hello(refused) = scene.refused().await else { panic!("by HELLO") };
    assert_eq!((told.kind, refused.kind), (HelloRefusalKind::Founding, HelloRefusalKind::Founding));
}

#[tokio::test]
async fn a_client_is_held_to_what_it_expects() {
    let scene = Scene::set().await;
    let till = credentials(&scene.authority, Role::Client, &node("us-east/till"), hour());
    let connect = |expect: Expect, cluster: Option<ClusterId>| {
        Client::connect(scene.node.addr(), expect, &till, cluster, settings())
    };
    for expect in [Expect::AnyNode, Expect::Region(region("us-east")), Expect::Node(scene.node.id.clone())] {
        let client = connect(expect, Some(CLUSTER)).await.expect("connected");
        client.ask(request("echo", b"")).await.expect("answered");
    }
    connect(Expect::AnyNode, None).await.expect("a cluster that is not known is not compared");
    let elsewhere = connect(Expect::Region(region("eu-central")), None).await.expect_err("refused");
    assert_eq!(elsewhere, ConnectError::Identity(IdentityError::Region("us-east".into())));
    let other = connect(Expect::Node(node("us-east/n2")), None).await.expect_err("refused");
    assert!(matches!(other, ConnectError::Identity(IdentityError::Name { .. })), "{other}");
    match connect(Expect::AnyNode, Some(ClusterId(8))).await {
        Err(ConnectError::HelloRefused(refusal)) => assert_eq!(refusal.kind, HelloRefusalKind::Cluster),
        other => panic!("{other:?}"),
    }
    scene.refused().await;
}

#[tokio::test]
async fn any_node_means_a_node_of_an_authority_that_the_client_believes() {
    let scene = Scene::set().await;
    let till = credentials(&authority(), Role::Client, &node("us-east/till"), hour());
    let refused = Client::connect(scene.node.addr(), Expect::AnyNode, &till, None, settings()).await;
    assert_eq!(refused.expect_err("refused"), ConnectError::Identity(IdentityError::UnknownAuthority));
    scene.refused().await;
}

#[tokio::test]
async fn a_session_is_never_resumed_so_every_certificate_is_checked() {
    let scene = Scene::set().await;
    let raw = Raw::new(&scene.authority, Some("c"), b"rhumb/1");
    for _ in 0..2 {
        let (connection, _send, _receive) = raw.greet(scene.node.addr(), &scene.node.id).await;
        connection.close(0u32.into(), b"");
        // A client that has a ticket could send before the handshake.
        assert!(raw.dial(scene.node.addr(), &scene.node.id).into_0rtt().is_err(), "there is no ticket");
    }
}

#[tokio::test]
async fn before_hello_a_peer_may_open_one_stream_and_has_little_time() {
    let authority = authority();
    let id = node("us-east/n1");
    let hurried = TransportSettings { handshake_timeout: Duration::from_millis(300), ..settings() };
    let node = Member::with(&credentials(&authority, Role::Node, &id, hour()), identity_of(&id), hurried);
    let raw = Raw::new(&authority, Some("c"), b"rhumb/1");
    let connection = raw.connect(node.addr(), &id).await.expect("connected");
    let _control = connection.open_bi().await.expect("the control stream");
    assert!(is_pending(connection.open_bi()).await, "no second one");
    assert!(is_pending(connection.open_uni()).await, "no lane");
    node.handlers.until("it is turned away", |seen| !seen.refused.is_empty()).await;
    assert!(matches!(node.handlers.seen.lock().refused[0], ConnectError::Timeout(_)));
    let (connection, _send, _receive) = raw.greet(node.addr(), &id).await;
    tokio::time::timeout(SOON, connection.open_uni()).await.expect("after HELLO").expect("opened");
}

#[tokio::test]
async fn who_stalls_in_handshakes_holds_their_places_no_longer_than_the_deadline() {
    let authority = authority();
    let id = node("us-east/n1");
    let narrow =
        TransportSettings { handshakes: 2, handshake_timeout: Duration::from_millis(500), ..settings() };
    let node = Member::with(&credentials(&authority, Role::Node, &id, hour()), identity_of(&id), narrow);
    let raw = Raw::new(&authority, Some("c"), b"rhumb/1");
    let _stalled = raw.connect(node.addr(), &id).await.expect("connected");
    // The second has to show first that its address is its own, and has the other half of the places.
    let _proven = raw.connect(node.addr(), &id).await.expect("connected");
    let refused = crate::mesh::client(&authority, "us-east/till", &node).await.expect_err("no place");
    assert!(matches!(refused, ConnectError::Lost(_)), "{refused}");
    let stalled = |error: &&ConnectError| matches!(error, ConnectError::Timeout(_));
    node.handlers
        .until("the stalled ones are turned away", |seen| seen.refused.iter().filter(stalled).count() == 2)
        .await;
    crate::mesh::client(&authority, "us-east/till", &node).await.expect("there is a place");
}

/// Whether a future is not ready at once.
async fn is_pending(future: impl Future) -> bool {
    let mut future = pin!(future);
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

#[tokio::test]
async fn a_transport_starts_only_as_the_node_of_its_certificate() {
    let authority = authority();
    let credentials = credentials(&authority, Role::Node, &node("us-east/n1"), hour());
    let bind = |identity| {
        let any = "127.0.0.1:0".parse().expect("an address");
        let regions = Regions::of([Region::new("us-east").expect("valid")]);
        let (rules, handlers) = (crate::mesh::Rules::default(), crate::mesh::Handlers::default());
        rhumb_transport::Transport::bind(
            any,
            &credentials,
            regions,
            identity,
            settings(),
            std::sync::Arc::new(rules),
            std::sync::Arc::new(handlers),
        )
    };
    let refused = bind(identity_of(&node("us-east/n2"))).expect_err("another node");
    assert!(refused.to_string().contains("us-east/n2"), "{refused}");
    bind(identity_of(&node("us-east/n1"))).expect("the certificate's");
}
