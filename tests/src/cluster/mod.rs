//! Real clusters: the program `rhumb` as processes, with real RocksDB and real QUIC, driven through
//! the commands that a user types.
//!
//! Each mesh lives in a temporary directory and stops with its guard: its supervisor is ended by pid,
//! and its nodes end with it.
#![expect(clippy::disallowed_methods, reason = "real processes take real time")]

mod founded;
mod serving;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use rhumb::clock::TEST_OFFSET;
use serde_json::Value;
use tempfile::TempDir;

pub use founded::{FoundedMesh, REGIONS};
pub use serving::{Serving, ask_admin, ask_admin_for, free_port};

/// How long a mesh may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// How long a condition may take to come true.
pub const SOON: Duration = Duration::from_secs(60);

/// Two meshes at a time: they mostly wait, and more would fight for two cores.
static TURNS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];

/// The program under test: `RHUMB_BIN`, or the one built beside this test.
///
/// # Panics
/// When there is none: build the workspace first (`make build`).
#[must_use]
pub fn program() -> PathBuf {
    let beside = || {
        let test = std::env::current_exe().expect("a test has a path");
        test.ancestors().nth(2).expect("target/PROFILE/deps/TEST").join("rhumb")
    };
    let program = std::env::var_os("RHUMB_BIN").map_or_else(beside, PathBuf::from);
    assert!(program.is_file(), "there is no {}: build the workspace first (`make build`)", program.display());
    program
}

/// A program of the workspace that lies beside [`program`].
///
/// # Panics
/// When there is none: build the workspace first (`make build`).
#[must_use]
pub fn beside(name: &str) -> PathBuf {
    let path = program().with_file_name(name);
    assert!(path.is_file(), "there is no {}: build the workspace first (`make build`)", path.display());
    path
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// The same as JSON, where it is.
    pub json: Value,
    /// Both outputs as text.
    pub text: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let json = serde_json::from_str(&out).unwrap_or(Value::Null);
        let text = format!("{out}{}", String::from_utf8_lossy(&output.stderr));
        Self { code: output.status.code().unwrap_or(-1), out, json, text }
    }
}

/// With this in its environment a test leaves its meshes' directories behind, with what nodes have logged.
const KEEP: &str = "RHUMB_KEEP";

/// Runs the program with these arguments in an empty environment of its own.
#[must_use]
pub fn run(directory: &Path, arguments: &[&str]) -> Ran {
    run_with(&[], directory, arguments)
}

/// Runs the program with these environment variables.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn run_with(variables: &[(&str, &str)], directory: &Path, arguments: &[&str]) -> Ran {
    let output = Command::new(program())
        .args(arguments)
        .envs(variables.iter().copied())
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    output.into()
}

/// Starts the program and leaves it running; what it prints goes to `spawned.log` in the directory.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn spawn(directory: &Path, arguments: &[&str]) -> Child {
    let log = std::fs::File::create(directory.join("spawned.log")).expect("a log");
    Command::new(program())
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("the program starts")
}

/// Sends a program a signal: `HUP`, `INT`.
///
/// # Panics
/// When it cannot be sent.
pub fn signal(program: &Child, signal: &str) {
    let pid = program.id().to_string();
    let sent = Command::new("kill").args(["-s", signal, &pid]).status().expect("kill runs");
    assert!(sent.success());
}

/// Where a mesh's traces go, if anywhere, and the environment of its nodes.
#[derive(Debug, Default)]
struct Traces {
    to: Option<String>,
    variables: Vec<(String, String)>,
}

/// Waits until no other mesh runs, for a program that needs both cores: until it is dropped, none does.
pub fn alone() -> impl Sized {
    TURNS.each_ref().map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Waits for one of the turns: a mesh runs beside one other at most, until this is dropped.
pub fn turn() -> MutexGuard<'static, ()> {
    loop {
        for turn in &TURNS {
            match turn.try_lock() {
                Ok(turn) => return turn,
                Err(TryLockError::Poisoned(turn)) => return turn.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        pause();
    }
}

/// A mesh run by `rhumb dev`.
pub struct DevMesh {
    supervisor: Child,
    directory: TempDir,
    nodes_run: Option<PathBuf>,
    traces: Traces,
    _turn: MutexGuard<'static, ()>,
}

impl DevMesh {
    /// Starts a mesh with these regions (`us-east:2,eu-central`) and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn start(regions: &str, wan: &str) -> Self {
        Self::begin(regions, wan, None, Traces::default())
    }

    /// Starts a mesh whose nodes send their traces to a collector, with these environment variables.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn start_traced(regions: &str, wan: &str, to: &str, variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let traces = Traces { to: Some(to.to_owned()), variables: variables.collect() };
        Self::begin(regions, wan, None, traces)
    }

    /// Starts a mesh in this environment.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn start_under(regions: &str, wan: &str, variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self::begin(regions, wan, None, Traces { to: None, variables: variables.collect() })
    }

    /// Stops the mesh and starts it again on the same data, with more in its environment.
    pub fn restart_with(&mut self, regions: &str, wan: &str, variables: &[(&str, &str)]) {
        let more = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.traces.variables.extend(more);
        self.restart(regions, wan);
    }

    /// Starts a mesh whose nodes run this program instead of `rhumb`.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn start_with(program: PathBuf, regions: &str, wan: &str) -> Self {
        Self::begin(regions, wan, Some(program), Traces::default())
    }

    /// Starts a mesh whose nodes run this program, with these environment variables.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn start_with_settings(
        program: PathBuf,
        regions: &str,
        wan: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let traces = Traces { to: None, variables: variables.collect() };
        Self::begin(regions, wan, Some(program), traces)
    }

    fn begin(regions: &str, wan: &str, nodes_run: Option<PathBuf>, traces: Traces) -> Self {
        let turn = turn();
        let mut directory = tempfile::tempdir().expect("a temporary directory");
        directory.disable_cleanup(std::env::var_os(KEEP).is_some());
        let supervisor = supervise(directory.path(), regions, wan, nodes_run.as_deref(), &traces);
        let mut mesh = Self { supervisor, directory, nodes_run, traces, _turn: turn };
        mesh.wait_ready();
        mesh
    }

    /// Stops the mesh and starts it again on the same data.
    pub fn restart(&mut self, regions: &str, wan: &str) {
        self.restart_after(regions, wan, |_| ());
    }

    /// Stops the mesh, does something to its data directory, and starts it again.
    pub fn restart_after(&mut self, regions: &str, wan: &str, meanwhile: impl FnOnce(&Path)) {
        self.end();
        meanwhile(&self.data());
        std::fs::remove_file(self.ready_file()).ok();
        self.supervisor =
            supervise(self.directory.path(), regions, wan, self.nodes_run.as_deref(), &self.traces);
        self.wait_ready();
    }

    /// Runs a command against this mesh.
    #[must_use]
    pub fn rhumb(&self, arguments: &[&str]) -> Ran {
        let data = self.data();
        let mut all = arguments.to_vec();
        all.extend(["-o", "json", "--data", data.to_str().expect("a path is text")]);
        // Who asks lives at the same time as the nodes.
        let offset = self.traces.variables.iter().filter(|(name, _)| name == TEST_OFFSET);
        let offset: Vec<_> = offset.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        run_with(&offset, self.directory.path(), &all)
    }

    /// Runs a command that must succeed; gives its JSON.
    ///
    /// # Panics
    /// When it does not.
    pub fn ok(&self, arguments: &[&str]) -> Value {
        let ran = self.rhumb(arguments);
        assert_eq!(ran.code, 0, "rhumb {}: {}", arguments.join(" "), ran.text);
        ran.json
    }

    /// The ready file's entry of a node (`us-east/n1`).
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn node(&self, id: &str) -> Value {
        let text = std::fs::read_to_string(self.ready_file()).expect("a ready file");
        let ready: Value = serde_json::from_str(&text).expect("JSON");
        let nodes = ready["regions"].as_array().expect("a list").clone();
        let is = |node: &Value| {
            format!("{}/{}", node["region"].as_str().unwrap_or(""), node["node"].as_str().unwrap_or(""))
        };
        nodes.into_iter().find(|node| is(node) == id).unwrap_or_else(|| panic!("no node {id}"))
    }

    /// What a node's admin HTTP says of itself.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn status(&self, id: &str) -> Value {
        self.admin(id, "/status")
    }

    /// What a node's admin HTTP answers on a path, as JSON.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn admin(&self, id: &str, path: &str) -> Value {
        let admin = self.node(id)["admin"].as_str().expect("a URL").replace("http://", "");
        let mut stream = TcpStream::connect(&admin).expect("the admin HTTP listens");
        stream.set_read_timeout(Some(SOON)).expect("a deadline");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a request is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        serde_json::from_str(body).expect("JSON")
    }

    /// Kills a node with SIGKILL, by the pid in the ready file.
    ///
    /// # Panics
    /// When the signal cannot be sent.
    pub fn kill_9(&self, id: &str) -> u64 {
        let pid = self.node(id)["pid"].as_u64().expect("a pid");
        let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs");
        assert!(killed.success());
        pid
    }

    /// Sends a node a signal, such as `HUP`, by the pid in the ready file.
    ///
    /// # Panics
    /// When the signal cannot be sent.
    pub fn signal(&self, id: &str, signal: &str) {
        let pid = self.node(id)["pid"].as_u64().expect("a pid").to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// A node's log.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn log(&self, id: &str) -> String {
        let log = self.data().join("nodes").join(id.replace('/', "-")).join("log");
        std::fs::read_to_string(log).expect("a node has a log")
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("dev")
    }

    /// The directory in which commands run.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn ready_file(&self) -> PathBuf {
        self.directory.path().join("ready.json")
    }

    fn wait_ready(&mut self) {
        let deadline = Instant::now() + READY_WITHIN;
        while !self.ready_file().is_file() {
            let ended = self.supervisor.try_wait().expect("a child can be asked");
            let log = || std::fs::read_to_string(self.directory.path().join("dev.log")).unwrap_or_default();
            assert!(ended.is_none(), "rhumb dev ended: {ended:?}\n{}", log());
            assert!(Instant::now() < deadline, "the mesh was not ready within {READY_WITHIN:?}\n{}", log());
            pause();
        }
    }

    fn end(&mut self) {
        let pid = self.supervisor.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().ok();
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            if matches!(self.supervisor.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            pause();
        }
        self.supervisor.kill().ok();
        self.supervisor.wait().ok();
    }
}

impl Drop for DevMesh {
    fn drop(&mut self) {
        self.end();
    }
}

fn supervise(directory: &Path, regions: &str, wan: &str, nodes_run: Option<&Path>, traces: &Traces) -> Child {
    let log = std::fs::File::create(directory.join("dev.log")).expect("a log");
    Command::new(program())
        .args(["dev", "--regions", regions, "--wan", wan, "--data", "dev", "--ready-file", "ready.json"])
        .args(traces.to.iter().flat_map(|to| ["--otlp", to]))
        .envs(traces.variables.iter().map(|(name, value)| (name, value)))
        .args(nodes_run.iter().flat_map(|program| [Path::new("--program"), program]))
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("the program starts")
}

/// Waits until a condition holds.
///
/// # Panics
/// When it does not within [`SOON`].
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    eventually_or(what, || if holds() { Ok(()) } else { Err(String::from("it does not hold")) });
}

/// Waits until something is found; what was found in its place the last time is told when it is not.
///
/// # Panics
/// When it is not within [`SOON`].
pub fn eventually_or<T>(what: &str, mut found: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        match found() {
            Ok(found) => return found,
            Err(last) => assert!(Instant::now() < deadline, "not within {SOON:?}: {what}; at last: {last}"),
        }
        pause();
    }
}

/// Between two looks at a condition.
fn pause() {
    std::thread::sleep(Duration::from_millis(25));
}
