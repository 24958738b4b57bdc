//! TCP between etcd's members that can be cut: what Rhumb's relay is to its nodes. Without delay or loss.
//!
//! Members know each other by the addresses of these relays. A cut is silence, not an end: nothing is read any more from
//! either side of a connection of that member, no connection is closed, and new ones are taken and led nowhere.
//!
//! * It decides: which member has dialled, by the process that has the other end of the socket.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// The relay before one member. Its connections end with it.
struct Relay {
    /// Where it listens.
    at: SocketAddr,
    task: AbortHandle,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the relays know: the processes of members, in their order, and who is cut off.
#[derive(Clone)]
struct Known {
    pids: Arc<Mutex<Vec<u32>>>,
    cut: watch::Sender<BTreeSet<usize>>,
}

/// A relay before each member.
pub struct Relays {
    all: Vec<Relay>,
    known: Known,
}

impl Relays {
    /// Starts one before each of these addresses.
    ///
    /// # Errors
    /// There is no port.
    pub async fn start(members: &[SocketAddr]) -> anyhow::Result<Self> {
        let known = Known { pids: Arc::default(), cut: watch::channel(BTreeSet::new()).0 };
        let mut all = Vec::new();
        for (member, target) in members.iter().copied().enumerate() {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let at = listener.local_addr()?;
            let task = tokio::spawn(serve(listener, member, target, known.clone())).abort_handle();
            all.push(Relay { at, task });
        }
        Ok(Self { all, known })
    }

    /// Where members find each other.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.all.iter().map(|relay| relay.at).collect()
    }

    /// The processes of the members, in their order.
    pub fn between(&self, pids: &[u32]) {
        *self.known.pids.lock() = pids.to_vec();
    }

    /// Cuts a member off from the others.
    pub fn cut_off(&self, member: usize) {
        self.known.cut.send_modify(|cut| {
            cut.insert(member);
        });
    }
}

async fn serve(listener: TcpListener, member: usize, target: SocketAddr, known: Known) {
    let mut connections = JoinSet::new();
    while let Ok((dialled, from)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let known = known.clone();
        connections.spawn(async move {
            if let Err(error) = relay(dialled, from, member, target, &known).await {
                eprintln!("a relay before an etcd member: {error:#}");
            }
        });
    }
}

async fn relay(
    dialled: TcpStream,
    from: SocketAddr,
    member: usize,
    target: SocketAddr,
    known: &Known,
) -> anyhow::Result<()> {
    let dialler = dialler(from, known).await?;
    let cut = known.cut.subscribe();
    let is_cut = |cut: &BTreeSet<usize>| cut.contains(&member) || cut.contains(&dialler);
    if is_cut(&cut.borrow()) {
        // Taken, and led nowhere, until the relay ends.
        return std::future::pending().await;
    }
    let Ok(mut there) = TcpStream::connect(target).await else { return Ok(()) };
    let mut here = dialled;
    here.set_nodelay(true)?;
    there.set_nodelay(true)?;
    let passed = async {
        let ((mut from_here, mut to_here), (mut from_there, mut to_there)) = (here.split(), there.split());
        tokio::select! {
            () = copy(&mut from_here, &mut to_there) => {}
            () = copy(&mut from_there, &mut to_here) => {}
        }
    };
    tokio::select! {
        () = passed => return Ok(()),
        () = silence(cut, is_cut) => {}
    }
    std::future::pending().await
}

/// Ends when the connection is cut.
async fn silence(mut cut: watch::Receiver<BTreeSet<usize>>, is_cut: impl Fn(&BTreeSet<usize>) -> bool) {
    if cut.wait_for(|cut| is_cut(cut)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Passes bytes on until either side ends.
async fn copy(from: &mut (impl AsyncReadExt + Unpin), to: &mut (impl AsyncWriteExt + Unpin)) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// Which member has dialled from this address.
async fn dialler(from: SocketAddr, known: &Known) -> anyhow::Result<usize> {
    for _ in 0..50 {
        let inode = inode(&std::fs::read_to_string("/proc/net/tcp")?, from.port());
        let pids = known.pids.lock().clone();
        if let Some(inode) = inode
            && let Some(member) = pids.iter().position(|pid| has(*pid, inode))
        {
            return Ok(member);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("no member dials from {from}")
}

/// The socket of this machine whose own port this is and that is connected (01), as `/proc/net/tcp` lists them.
fn inode(table: &str, port: u16) -> Option<u64> {
    let local = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let found = words.get(1)?.ends_with(&local) && *words.get(3)? == "01";
        let inode: u64 = words.get(9)?.parse().ok()?;
        (found && inode > 0).then_some(inode)
    })
}

/// Whether a process has this socket.
fn has(pid: u32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.flatten().any(|one| std::fs::read_link(one.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member that says back what it hears.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let at = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    copy(&mut from, &mut to).await;
                });
            }
        });
        at
    }

    async fn answers(stream: &mut TcpStream) -> bool {
        let mut heard = [0; 2];
        let exchange = async {
            stream.write_all(b"hi").await?;
            stream.read_exact(&mut heard).await
        };
        matches!(tokio::time::timeout(Duration::from_millis(300), exchange).await, Ok(Ok(_)))
    }

    #[tokio::test]
    async fn whoever_is_cut_off_is_heard_no_more_and_nobody_is_told() {
        let relays = Relays::start(&[echo().await, echo().await]).await.expect("relays");
        // This process is the first member.
        relays.between(&[std::process::id(), u32::MAX]);
        let to_second = relays.addresses()[1];
        let mut before = TcpStream::connect(to_second).await.expect("connected");
        assert!(answers(&mut before).await);
        relays.cut_off(0);
        assert!(!answers(&mut before).await, "it had dialled, and is cut off");
        let mut after = TcpStream::connect(to_second).await.expect("connections are taken");
        assert!(!answers(&mut after).await);
    }

    #[test]
    fn a_socket_is_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 111 1\n\
            1: 0100007F:9C40 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 0 0 222 1\n";
        assert_eq!((inode(table, 0x9C40), inode(table, 0x1F90), inode(table, 1)), (Some(222), None, None));
    }
}
