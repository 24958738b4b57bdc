//! Nodes started one by one with `rhumb serve`, from settings and certificates as an operator has them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;

use super::{SOON, eventually, program};

/// How many lines of its log a node's guard tells when a test fails.
const LAST_WORDS: usize = 40;

/// Where [`free_port`] looks first: below all that an operating system gives away by itself.
const PORTS: Range<u16> = 12_000..32_000;
/// Ports that were looked at by this process.
static LOOKED_AT: AtomicU16 = AtomicU16::new(0);

/// A port of this machine that is free for UDP and TCP, and that is given to nobody who asks for any. (A port that is could
/// be that of a connection when its node starts: also of one from whoever asks whether the node listens already, which is
/// then connected to itself.)
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    let many = PORTS.end - PORTS.start;
    // Processes that run side by side begin far from each other.
    let begin = (std::process::id().wrapping_mul(7_919) % u32::from(many)) as u16;
    let free = std::iter::repeat_with(|| {
        let looked_at = LOOKED_AT.fetch_add(1, Ordering::Relaxed) % many;
        let port = PORTS.start + (begin + looked_at) % many;
        let is_free =
            UdpSocket::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok();
        is_free.then_some(port)
    });
    free.take(1_000).flatten().next().expect("a free port")
}

/// What an admin HTTP answers on a path: its status code and body; `None` while nobody listens.
#[must_use]
pub fn ask_admin(address: &str, path: &str) -> Option<(u16, String)> {
    let (head, body) = ask_admin_for(address, path, "*/*")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some((code, body))
}

/// What an admin HTTP answers on a path to who accepts these media types: its head and its body; `None`
/// while nobody listens.
#[must_use]
pub fn ask_admin_for(address: &str, path: &str, accept: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(SOON)).ok()?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}

/// A process of `rhumb serve`. It is killed with its guard.
pub struct Serving {
    child: Child,
    admin: String,
    log: PathBuf,
    /// The log, also when its folder has gone.
    written: File,
}

impl Serving {
    /// Starts a node in a folder; its log is there. It need not be ready when this returns.
    ///
    /// # Panics
    /// When the program does not start.
    #[must_use]
    pub fn start(directory: &Path, config: &str, region: &str, node: &str, admin: &str) -> Self {
        Self::start_with(&[], directory, config, region, node, admin)
    }

    /// Starts a node with these environment variables.
    ///
    /// # Panics
    /// When the program does not start.
    #[must_use]
    pub fn start_with(
        variables: &[(&str, &str)],
        directory: &Path,
        config: &str,
        region: &str,
        node: &str,
        admin: &str,
    ) -> Self {
        Self::start_of(&program(), variables, directory, config, region, node, admin)
    }

    /// Starts a node that is a program of its own.
    ///
    /// # Panics
    /// When the program does not start.
    #[must_use]
    pub fn start_of(
        program: &Path,
        variables: &[(&str, &str)],
        directory: &Path,
        config: &str,
        region: &str,
        node: &str,
        admin: &str,
    ) -> Self {
        let log = directory.join(format!("{region}-{node}.log"));
        let out = File::create(&log).expect("a log");
        let written = File::open(&log).expect("a log");
        let child = Command::new(program)
            .args(["serve", "--config", config, "--region", region, "--node", node, "--until-stdin-closes"])
            .envs(variables.iter().copied())
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(out.try_clone().expect("a log"))
            .stderr(out)
            .spawn()
            .expect("the program starts");
        Self { child, admin: admin.to_owned(), log, written }
    }

    /// Waits until the node can serve.
    ///
    /// # Panics
    /// When it cannot in time.
    pub fn wait_ready(&mut self) {
        let admin = self.admin.clone();
        eventually("the node is ready", || {
            let ended = self.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "the node ended: {ended:?}\n{}", self.log());
            ask_admin(&admin, "/readyz").is_some_and(|(code, _)| code == 200)
        });
    }

    /// Waits until the process has ended.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_end(&mut self) -> ExitStatus {
        let mut ended = None;
        eventually("the process ends", || {
            ended = self.child.try_wait().expect("a child can be asked");
            ended.is_some()
        });
        ended.expect("it has ended")
    }

    /// How the process has ended, if it has.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// Where its admin HTTP listens.
    #[must_use]
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// What its admin HTTP answers on a path.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn get(&self, path: &str) -> String {
        ask_admin(&self.admin, path).expect("the admin HTTP answers").1
    }

    /// What it says of itself.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status")).expect("JSON")
    }

    /// Sends it a signal, such as `HUP`.
    ///
    /// # Panics
    /// When the signal cannot be sent.
    pub fn signal(&self, signal: &str) {
        super::signal(&self.child, signal);
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a node has a log")
    }
}

impl Drop for Serving {
    #[expect(clippy::print_stderr, reason = "beside the panic of the test")]
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let mut log = String::new();
            self.written.read_to_string(&mut log).ok();
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n");
            eprintln!("the end of {}:\n{last}\n", self.log.display());
        }
    }
}
