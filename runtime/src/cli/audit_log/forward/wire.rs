//! A connection to a syslog server: TCP, or TLS over it.
//!
//! * It decides: where a server is, and what became of bytes, as far as this side's kernel knows.
//! * It never does: send over UDP, or to a server whose certificate the given authority has not signed.
//! * Invariant: [`Wire::settled`] ends well only when the other side's kernel has acknowledged every byte.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::super::super::output::Failure;

/// How long a server may take to be reached, and to take the next bytes of a batch.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const TAKEN_WITHIN: Duration = Duration::from_secs(60);
/// A server that acknowledges nothing for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(30);
/// How long a connection rests before it is probed, and how often it is.
const PROBE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// Where a syslog server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    tls: bool,
    host: String,
    port: u16,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const RIGHT: &str = "expected tcp://HOST:PORT (syslog's port is 601) or tls://HOST:PORT (6514)";
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let tls = match scheme {
            "tcp" => false,
            "tls" => true,
            "udp" => {
                return Err(format!(
                    "over UDP entries are lost and nobody is told, so it is not spoken here; {RIGHT}"
                ));
            }
            other => return Err(format!("nothing is known of {other}://; {RIGHT}")),
        };
        let (host, port) = rest.rsplit_once(':').ok_or(RIGHT)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(RIGHT)?;
        let named =
            !host.is_empty() && !host.contains(['/', '@', '[', ']']) && !host.contains(char::is_whitespace);
        if !named || (host.contains(':') && !rest.starts_with('[')) {
            return Err(RIGHT.to_owned());
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "tls" } else { "tcp" };
        let Self { host, port, .. } = self;
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

/// A server, and how it is known.
pub(super) struct Server {
    address: Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Server {
    /// The server at this address; of TLS, one whose certificate an authority of this file has signed.
    ///
    /// # Errors
    /// [`Failure::Usage`]: the file is missing, not needed, or has no authority.
    pub(super) fn new(address: &Address, ca: Option<&Path>) -> Result<Self, Failure> {
        let usage = |why: String| Err(Failure::Usage(why));
        let tls = match (address.tls, ca) {
            (false, None) => None,
            (false, Some(_)) => return usage(format!("--ca is for tls://HOST:PORT, not for {address}")),
            (true, None) => {
                return usage(format!(
                    "{address} needs --ca FILE: the authorities (PEM) that sign such servers"
                ));
            }
            (true, Some(ca)) => {
                let wrong = |why: String| Failure::Usage(format!("{}: {why}", ca.display()));
                let mut roots = RootCertStore::empty();
                let all = CertificateDer::pem_file_iter(ca).map_err(|why| wrong(why.to_string()))?;
                for one in all {
                    let added = one.map_err(|why| why.to_string());
                    let added = added.and_then(|one| roots.add(one).map_err(|why| why.to_string()));
                    added.map_err(wrong)?;
                }
                if roots.is_empty() {
                    return Err(wrong(
                        "there is no certificate in it; expected authorities in PEM".to_owned(),
                    ));
                }
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let config = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map_err(Failure::local)?
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                let name = ServerName::try_from(address.host.clone()).map_err(|_| {
                    Failure::Usage(format!("{address}: {} is no name of a server", address.host))
                })?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        Ok(Self { address: address.clone(), tls })
    }

    /// Connects.
    ///
    /// # Errors
    /// The server is not reached, or is not the one that is meant.
    pub(super) async fn connect(&self) -> io::Result<Wire> {
        let connecting = async {
            let Address { host, port, .. } = &self.address;
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            let socket = SockRef::from(&stream);
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE.0).with_interval(PROBE.1))?;
            socket.set_tcp_user_timeout(Some(GONE_AFTER))?;
            let kernel = socket.try_clone()?;
            let stream: Box<dyn Stream> = match &self.tls {
                None => Box::new(stream),
                Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
            };
            let (reader, writer) = split(stream);
            Ok(Wire { tls: self.tls.is_some(), kernel, reader, writer })
        };
        timeout(CONNECT_WITHIN, connecting).await.unwrap_or_else(|_| Err(late("connected")))
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection.
pub(super) struct Wire {
    tls: bool,
    /// The socket itself, which is asked what was acknowledged.
    kernel: socket2::Socket,
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
}

impl Wire {
    /// Waits until the server ends the connection. Well: it had read all that its kernel had for it, for a Linux that
    /// closes a socket with something unread resets the connection (RFC 2525, section 2.17). Over TLS nobody says so much:
    /// a `close_notify` may leave before what came was read, so there the end is always an error.
    pub(super) async fn ended(&mut self) -> io::Result<()> {
        let mut said = [0; 256];
        // Syslog servers say nothing. What one says is not for us.
        while self.reader.read(&mut said).await? > 0 {}
        if self.tls {
            let why = "it ended the connection, and over TLS that does not say what it had read";
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, why));
        }
        Ok(())
    }

    /// Sends, and waits until the other side's kernel has acknowledged every byte. A server may be slow: as long as it
    /// takes some within [`TAKEN_WITHIN`], it is waited for.
    pub(super) async fn settled(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let mut late_at = Instant::now() + TAKEN_WITHIN;
        while !bytes.is_empty() {
            let written =
                timeout_at(late_at, self.writer.write(bytes)).await.map_err(|_| late("taken"))??;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
            late_at = Instant::now() + TAKEN_WITHIN;
        }
        timeout_at(late_at, self.writer.flush()).await.map_err(|_| late("taken"))??;
        let (mut pause, mut least) = (Duration::from_micros(200), usize::MAX);
        loop {
            let left = unacknowledged(&self.kernel)?;
            // Looked at after the queue: that of a connection that was reset may be empty too.
            match self.kernel.take_error()? {
                Some(error) => return Err(error),
                None if left == 0 => return Ok(()),
                None if left < least => (least, late_at) = (left, Instant::now() + TAKEN_WITHIN),
                None if Instant::now() >= late_at => return Err(late("taken")),
                None => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Ends it in order, where that is still possible.
    pub(super) async fn close(mut self) {
        // It is not waited for: what was sent is acknowledged.
        timeout(Duration::from_secs(1), self.writer.shutdown()).await.ok();
    }
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("not {what} in time"))
}

/// Bytes in the socket's queue that the other side has not acknowledged: SIOCOUTQ of tcp(7), which is TIOCOUTQ.
#[expect(unsafe_code, reason = "no safe crate among ours wraps this ioctl(2)")]
fn unacknowledged(socket: &socket2::Socket) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open as long as the socket, and the kernel writes one int.
    let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if asked == 0 { Ok(bytes.unsigned_abs() as usize) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Shutdown, TcpListener};

    use super::*;

    #[test]
    fn where_a_server_is() {
        for (text, told) in [
            ("siem.example:601", "tcp://siem.example:601"),
            ("tcp://127.0.0.1:601", "tcp://127.0.0.1:601"),
            ("tls://siem.example:6514", "tls://siem.example:6514"),
            ("tcp://[::1]:601", "tcp://[::1]:601"),
        ] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()).as_deref(), Ok(told));
        }
        for (text, why) in [
            ("udp://siem.example:514", "over UDP entries are lost"),
            ("http://siem.example:601", "nothing is known of http"),
            ("siem.example", "expected tcp://"),
            ("siem.example:0", "expected tcp://"),
            ("siem.example:99999", "expected tcp://"),
            ("tcp://:601", "expected tcp://"),
            ("tcp://siem.example/x:601", "expected tcp://"),
            ("::1:601", "expected tcp://"),
        ] {
            let said = text.parse::<Address>().expect_err(text);
            assert!(said.contains(why) && said.contains("tls://HOST:PORT"), "{said}");
        }
    }

    #[test]
    fn an_authority_is_for_tls_and_tls_needs_one() {
        let refused = |address: &str, ca: Option<&Path>| {
            let address: Address = address.parse().expect("an address");
            Server::new(&address, ca).err().expect("refused").message()
        };
        let folder = tempfile::tempdir().expect("a folder");
        let ca = folder.path().join("ca.pem");
        assert!(refused("tcp://siem:601", Some(&ca)).contains("--ca is for tls"));
        assert!(refused("tls://siem:6514", None).contains("needs --ca FILE"));
        assert!(refused("tls://siem:6514", Some(&ca)).contains("ca.pem"));
        std::fs::write(&ca, "no certificate").expect("written");
        assert!(refused("tls://siem:6514", Some(&ca)).contains("no certificate in it"));
    }

    fn server() -> (TcpListener, Server) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        (listener, Server::new(&address.parse().expect("an address"), None).expect("plain TCP"))
    }

    #[tokio::test]
    async fn a_server_that_read_all_ends_well_and_one_that_did_not_resets() {
        let (listener, server) = server();
        let mut wire = server.connect().await.expect("it listens");
        let (mut theirs, _) = listener.accept().expect("a connection");
        wire.settled(b"3 abc").await.expect("taken");
        let mut read = [0; 5];
        theirs.read_exact(&mut read).expect("read");
        drop(theirs);
        wire.ended().await.expect("in order");

        let mut wire = server.connect().await.expect("it listens");
        let (theirs, _) = listener.accept().expect("a connection");
        wire.settled(b"3 abc").await.expect("its kernel has it");
        drop(theirs);
        wire.ended().await.expect_err("it has not read it");
    }

    #[tokio::test]
    async fn the_end_of_a_connection_of_tls_says_nothing_of_what_was_read() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, made.cert.pem()).expect("written");
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a certificate and its key");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let address = format!("tls://localhost:{port}").parse().expect("an address");
        let server = Server::new(&address, Some(&ca)).expect("an authority");
        let serving = async {
            let (stream, _) = listener.accept().await.expect("a connection");
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            let mut theirs = acceptor.accept(stream).await.expect("a handshake");
            theirs.read_exact(&mut [0; 5]).await.expect("read");
            theirs.shutdown().await.expect("it says goodbye");
        };
        let sending = async {
            let mut wire = server.connect().await.expect("it listens");
            wire.settled(b"3 abc").await.expect("taken");
            wire.ended().await
        };
        let ((), ended) = tokio::join!(serving, sending);
        let why = ended.expect_err("what came may be unread").to_string();
        assert!(why.contains("does not say what it had read"), "{why}");
    }

    #[tokio::test]
    async fn bytes_that_nobody_acknowledges_are_not_settled() {
        let (listener, server) = server();
        let mut wire = server.connect().await.expect("it listens");
        let (theirs, _) = listener.accept().expect("a connection");
        // Nobody reads: both kernels' buffers fill, and the rest stays here.
        let many = vec![b'x'; 64 << 20];
        let settled = timeout(Duration::from_millis(300), wire.settled(&many)).await;
        assert!(settled.is_err(), "{settled:?}");
        theirs.shutdown(Shutdown::Both).ok();
        drop(theirs);
        let mut wire = server.connect().await.expect("it listens");
        drop(listener);
        let sent = async {
            loop {
                wire.settled(b"3 abc").await?;
            }
        };
        let sent: io::Result<()> = sent.await;
        sent.expect_err("what was reset is not settled");
    }
}
