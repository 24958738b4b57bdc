//! The UDP socket under an endpoint. Its buffers decide how much loss a burst causes, and Linux clamps
//! what is asked without a word, so they are read back.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

/// An endpoint on an address, which may have port 0.
pub(crate) fn endpoint(
    addr: SocketAddr,
    buffer: usize,
    server: Option<ServerConfig>,
) -> io::Result<Endpoint> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&addr.into())?;
    for (name, sysctl, granted) in [
        (
            "receive",
            "net.core.rmem_max",
            grow(|| socket.set_recv_buffer_size(buffer), || socket.recv_buffer_size()),
        ),
        (
            "send",
            "net.core.wmem_max",
            grow(|| socket.set_send_buffer_size(buffer), || socket.send_buffer_size()),
        ),
    ] {
        let granted = granted?;
        // Linux reports twice what it grants, for its own bookkeeping.
        if granted < buffer {
            warn!(
                name,
                granted,
                wanted = buffer,
                "UDP buffer is smaller than asked: raise {sysctl}, or bursts are lost"
            );
        }
    }
    Endpoint::new(EndpointConfig::default(), server, socket.into(), Arc::new(TokioRuntime))
}

fn grow(set: impl Fn() -> io::Result<()>, read: impl Fn() -> io::Result<usize>) -> io::Result<usize> {
    // Some systems refuse what is over their limit instead of clamping it: what counts is what there is.
    if let Err(error) = set() {
        warn!(%error, "UDP buffer size was refused");
    }
    read()
}
