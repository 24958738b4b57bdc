//! What spans and their attributes are called: OpenTelemetry's semantic conventions 1.42 for RPC (an ask)
//! and messaging (a tell), and our own keys.
//!
//! * It decides: names.
//! * It never does: name an actor's key, a field of a message, or anything else that is data. Names of
//!   spans are those of messages: few.

/// The region of the node that made the span.
pub const REGION: &str = "rhumb.region";
/// The node that made the span, `REGION/NODE`; of a program that only calls, its principal.
pub const NODE: &str = "rhumb.node";
/// The class of the data that the call is about.
pub const CLASS: &str = "rhumb.data.class";
/// The hybrid time at which the span began; zero for a program that only calls.
pub const HYBRID_TIME: &str = "rhumb.hybrid_time";
/// The region of the other side.
pub const PEER_REGION: &str = "rhumb.peer.region";

/// What an answer rests on, `strict_serializable` to `eventual`; of a tell, what the message rests on.
pub const GUARANTEE: &str = "rhumb.guarantee";
/// How old the answer to a read of a keyspace may be, in milliseconds.
pub const AGE_MS: &str = "rhumb.kv.age_ms";

/// The type of an actor.
pub const ACTOR_TYPE: &str = "rhumb.actor.type";

/// Whether a node may spend what its disk says: `proven`, `unproven` or `restored`.
pub const STANDING: &str = "rhumb.escrow.standing";

/// How many mailboxes took a broadcast.
pub const BROADCAST_TAKEN: &str = "rhumb.broadcast.taken";
/// How many mailboxes refused it.
pub const BROADCAST_REFUSED: &str = "rhumb.broadcast.refused";

/// `rhumb`, on the spans of an ask.
pub const RPC_SYSTEM: &str = "rpc.system.name";
/// The method of an ask.
pub const RPC_METHOD: &str = "rpc.method";
/// How an ask ended: `ok` (a refusal is an answer too), or the code of the fault.
pub const RPC_STATUS: &str = "rpc.response.status_code";
/// The code of the fault, where there was one.
pub const ERROR_TYPE: &str = "error.type";
/// Where the other side was reached.
pub const SERVER_ADDRESS: &str = "server.address";
/// At which port.
pub const SERVER_PORT: &str = "server.port";
/// `rhumb`, on the spans of a tell.
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// `send` or `process`.
pub const MESSAGING_OPERATION: &str = "messaging.operation.name";
/// The same by its kind.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// The message that was told.
pub const MESSAGING_DESTINATION: &str = "messaging.destination.name";

/// This system.
pub const RHUMB: &str = "rhumb";

/// Between a message's arrival in a mailbox and its turn.
pub const QUEUE: &str = "queue";
/// A message becomes bytes.
pub const ENCODE: &str = "encode";
/// Bytes become a message.
pub const DECODE: &str = "decode";
/// The residency policy is asked before bytes leave.
pub const EGRESS_GATE: &str = "egress gate";
/// The residency policy is asked when bytes have come.
pub const INGRESS_GATE: &str = "ingress gate";
/// An actor's handler, with the future that it returned.
pub const HANDLER: &str = "handler";

/// The method of a message, fully qualified, as RPC conventions write it: `orders.cart.Add` is
/// `orders.cart/Add`.
#[must_use]
pub fn method(message: &str) -> String {
    match message.rsplit_once('.') {
        Some((service, method)) => format!("{service}/{method}"),
        None => message.to_owned(),
    }
}

/// The name of the span of one who tells.
#[must_use]
pub fn send(message: &str) -> String {
    format!("send {message}")
}

/// The name of the span of one who is told.
#[must_use]
pub fn process(message: &str) -> String {
    format!("process {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_its_service_and_its_name() {
        for (message, named) in [
            ("orders.Cart.Add", "orders.Cart/Add"),
            ("escrow.Hold", "escrow/Hold"),
            ("Ping", "Ping"),
            ("a.b.c.D", "a.b.c/D"),
        ] {
            assert_eq!(method(message), named);
        }
        assert_eq!(
            (send("orders.Paid"), process("orders.Paid")),
            ("send orders.Paid".into(), "process orders.Paid".into())
        );
    }
}
