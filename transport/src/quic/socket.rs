//! The UDP socket under an endpoint. Its buffers decide how much loss a burst causes, and Linux clamps
//! what is asked without a word, so they are read back.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{
    AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, Runtime, ServerConfig,
    TokioRuntime, UdpPoller,
};
use quinn_proto::HashedConnectionIdGenerator;
use rhumb_core::rng::Seed;
use socket2::{Domain, Protocol, Socket, Type};
use tracing::{debug, warn};

use crate::counts::Counted;
use crate::datagrams::{ID_BYTES, KINDS, Kind, kind};

/// An endpoint on an address, which may have port 0.
pub(crate) fn endpoint(
    addr: SocketAddr,
    buffer: usize,
    server: Option<ServerConfig>,
) -> io::Result<(Endpoint, Arc<Datagrams>)> {
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
    let key = Seed::from_entropy().rng().below(u64::MAX);
    let mut config = EndpointConfig::default();
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
    let inner = TokioRuntime.wrap_udp_socket(socket.into())?;
    let ids = HashedConnectionIdGenerator::from_key(key);
    let datagrams = Arc::new(Datagrams { inner, ids, counts: Default::default() });
    let socket = Arc::clone(&datagrams) as Arc<dyn AsyncUdpSocket>;
    let endpoint = Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))?;
    Ok((endpoint, datagrams))
}

/// The socket, and what has come to it.
pub(crate) struct Datagrams {
    inner: Arc<dyn AsyncUdpSocket>,
    ids: HashedConnectionIdGenerator,
    counts: [AtomicU64; KINDS.len()],
}

impl Datagrams {
    /// Datagrams that have come, by kind.
    pub(crate) fn counted(&self) -> Counted {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        KINDS.into_iter().zip(counts).collect()
    }

    /// Counts what one read has brought: datagrams of one size, one after the other.
    fn count(&self, read: &[u8], size: usize) {
        let ours = |id: &[u8; ID_BYTES]| self.ids.validate(&ConnectionId::new(id)).is_ok();
        for datagram in read.chunks(size.max(1)) {
            self.counts[kind(datagram, ours) as usize].fetch_add(1, Ordering::Relaxed);
        }
        if read.is_empty() {
            self.counts[Kind::Stray as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagrams").field("counted", &self.counted()).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for Datagrams {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let read = self.inner.poll_recv(context, buffers, meta);
        if let Poll::Ready(Ok(count)) = &read {
            for (buffer, meta) in buffers.iter().zip(meta.iter()).take(*count) {
                self.count(&buffer[..meta.len], meta.stride);
            }
        }
        read
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
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
        let (endpoint, _) = endpoint(any, 1 << 40, None).expect("an absurd wish is no error");
        assert_ne!(endpoint.local_addr().expect("bound").port(), 0);
    }
}
