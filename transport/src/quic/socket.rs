//! The UDP socket under an endpoint. Its buffers decide how much loss a burst causes, and Linux clamps
//! what is asked without a word, so they are read back.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::{debug, warn};

/// An endpoint on an address, which may have port 0.
pub(crate) fn endpoint(
    addr: SocketAddr,
    buffer: usize,
    server: Option<ServerConfig>,
) -> io::Result<Endpoint> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&addr.into())?;
    let receive = grow(|| socket.set_recv_buffer_size(buffer), || socket.recv_buffer_size())?;
    let send = grow(|| socket.set_send_buffer_size(buffer), || socket.send_buffer_size())?;
    for (granted, sysctl) in [(receive, "net.core.rmem_max"), (send, "net.core.wmem_max")] {
        // Only a node has bursts to fear; a program that calls need not worry its user.
        if granted < buffer && server.is_some() {
            warn!(
                granted,
                wanted = buffer,
                "UDP buffer is smaller than asked: raise {sysctl} or lose bursts"
            );
        }
    }
    Endpoint::new(EndpointConfig::default(), server, socket.into(), Arc::new(TokioRuntime))
}

/// Asks for a size and says what was granted, in bytes of datagrams.
fn grow(set: impl Fn() -> io::Result<()>, read: impl Fn() -> io::Result<usize>) -> io::Result<usize> {
    // Some systems refuse what is over their limit instead of clamping it: what counts is what there is.
    if let Err(error) = set() {
        debug!(%error, "UDP buffer size was refused");
    }
    // Linux reports twice what it grants, for its own bookkeeping.
    let share = if cfg!(target_os = "linux") { 2 } else { 1 };
    Ok(read()? / share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_has_at_least_the_buffers_that_any_system_grants() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket =
            Socket::new(Domain::for_address(any), Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
        let granted = grow(|| socket.set_recv_buffer_size(64 << 10), || socket.recv_buffer_size());
        assert_eq!(granted.expect("readable"), 64 << 10, "what is granted, not what is reported");
        let endpoint = endpoint(any, 1 << 40, None).expect("an absurd wish is no error");
        assert_ne!(endpoint.local_addr().expect("bound").port(), 0);
    }
}
