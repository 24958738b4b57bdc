//! A mesh inside one process, for tests and examples: nodes whose messages are bytes and pass gates,
//! lanes and bounds as they do over QUIC, and a network between them that the test holds in its hand.
//!
//! * It decides: when what was sent arrives (after a delay, in the order of its lane), and when a peer
//!   has been unheard for too long.
//! * It never does: open a socket, start a thread, read another clock than tokio's (paused, its time is
//!   virtual), or hand a value from one node to another other than as bytes.
//! * Invariants: the rules of a link are those of [`crate::quic`], by the same code. What is sent into
//!   a cut waits, as QUIC would send it again, until the cut is healed or the connection has ended.
//!   Everything on its way is bounded, by the windows of the settings.
//!
//! Not as over QUIC: nothing is lost for a moment, there are no certificates, and both ends of a
//! connection come up at the same moment. A frozen node's own tasks run on; only nothing reaches it
//! and nothing leaves it. When it thaws, what waited for it still reaches its handlers, also when its
//! callers have long been told *unknown*.
//!
//! ```
//! # use std::sync::Arc;
//! # use std::time::Duration;
//! # use rhumb_core::{DataClass, Gate, GateRefusal, NodeId, Passage, Principal, Role};
//! # use rhumb_transport::in_process::{Network, NodeDescription};
//! # use rhumb_transport::{Answer, Headers, Inbound, Peer, Reply, Request};
//! struct Echo;
//! impl Inbound for Echo {
//!     fn deliver(&self, _: &Arc<Peer>, request: Request, answer: Answer) {
//!         let (class, body, hybrid) = (request.class, request.body, request.headers.hybrid);
//!         answer.reply(Reply { class, body, hybrid, guarantee: request.headers.guarantee, trace: None });
//!     }
//! }
//! # struct Open;
//! # impl Gate for Open {
//! #     fn check(&self, _: Passage<'_>) -> Result<(), GateRefusal> { Ok(()) }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let network = Network::new(7);
//! let (us, eu) = (NodeId::new("us", "n1")?, NodeId::new("eu", "n1")?);
//! let port = network.join(NodeDescription::new(us.clone()), Arc::new(Open), Arc::new(Echo));
//! network.join(NodeDescription::new(eu.clone()), Arc::new(Open), Arc::new(Echo));
//! network.delay_between(&us, &eu, Duration::from_millis(2));
//! assert!(port.connected(&eu, Duration::from_secs(5)).await);
//!
//! let hello = || {
//!     let headers = Headers::within(Duration::from_secs(5));
//!     Request::ask("echo", DataClass::control(), "hello".into(), headers)
//! };
//! assert_eq!(port.ask(&eu, 1, hello()).await?.body, "hello");
//! network.cut(&us.region, &eu.region);
//! port.ask(&eu, 1, hello()).await.expect_err("nobody is heard any more");
//! # Ok(())
//! # }
//! ```

mod cable;
mod connection;
mod line;
mod member;
mod network;
mod paths;
mod port;

pub use member::NodeDescription;
pub use network::Network;
pub use paths::Place;
pub use port::{ClientPort, Port};
