//! What a program that hosts or calls actors needs: `use rhumb::prelude::*`.

pub use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient};
pub use rhumb_actors::{Wire, grows, protocol, remote, remote_actor};
pub use rhumb_core::{
    Blob, Consistent, DataClass, Delivery, Epoch, Fault, FaultKind, Guarantee, NodeId, Priority, Region,
};

pub use crate::host::watch::Ended;
pub use crate::host::{Activation, ActorReply, Admission, Call, Host, Reply, Restarts, call};
pub use crate::mesh::resilience::Mode;
pub use crate::mesh::{Mesh, MeshAddr, Seen, Teller, Told, Watch};
