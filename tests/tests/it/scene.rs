//! A mesh of the real program on disks that may lose their power or go bad, and customers who keep
//! receipts of their own.
//!
//! What must hold after whatever happened: the nodes start; every receipt is found as it was answered; the
//! sums of the receipts are the nodes' own; nothing that counts upwards has gone back.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use rhumb_core::rng::{Rng, Seed};
use rhumb_tests::cluster::{FoundedMesh, REGIONS, Serving, ask_admin, beside, eventually, program};
use rhumb_tests::powercut::{Image, Loss, Watched};
use serde_json::Value;

/// Says which seed to run, in place of those of the tests.
const SEED: &str = "RHUMB_POWERCUT_SEED";
const LEDGER: &str = "ledger.jsonl";

/// Small tables and logs, so that a few hundred holds make RocksDB turn over all kinds of its files; and no
/// wait after so many deaths.
const SMALL: [(&str, &str); 4] = [
    ("RHUMB__STORAGE__MEMTABLE", "1MiB"),
    ("RHUMB__STORAGE__WRITE_AHEAD_LOG", "1MiB"),
    ("RHUMB__SUPERVISOR__CRASHES", "64"),
    ("RHUMB__SUPERVISOR__CRASH_WINDOW", "1s"),
];

pub(crate) fn full() -> bool {
    std::env::var_os("RHUMB_FULL").is_some()
}

/// The seed asked for, or that of the test; a fresh one where counts are full.
pub(crate) fn seed(own: u64) -> u64 {
    let asked = std::env::var(SEED).ok().map(|text| text.parse().expect("a seed is a number"));
    asked.unwrap_or_else(|| if full() { Seed::from_entropy().rng().u64() } else { own })
}

/// What of a node may never go back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Heights {
    pub(crate) durable_commit: u64,
    pub(crate) incarnation: u64,
    /// Milliseconds and counter of its hybrid time.
    pub(crate) hybrid: (u64, u64),
}

impl Heights {
    fn of(status: &Value) -> Option<Self> {
        let (millis, counter) = status["hybrid_time"].as_str()?.split_once('.')?;
        Some(Self {
            durable_commit: status["durable_commit"].as_u64()?,
            incarnation: status["incarnation"].as_u64()?,
            hybrid: (millis.parse().ok()?, counter.parse().ok()?),
        })
    }

    /// What has gone back since, in a later life of the node.
    fn fallen(self, later: Self) -> Option<String> {
        let kept = self == Self::default()
            || (later.durable_commit >= self.durable_commit
                && later.incarnation > self.incarnation
                && later.hybrid > self.hybrid);
        (!kept).then(|| format!("gone back: {self:?} before, {later:?} after it"))
    }
}

/// A node's process, and the watch over its disk.
pub(crate) struct Running {
    pub(crate) watched: Watched,
    pub(crate) serving: Serving,
}

/// A mesh on such disks, its customers, and what is known of both.
pub(crate) struct Scene {
    pub(crate) mesh: FoundedMesh,
    pub(crate) rng: Rng,
    /// What each node has said of itself last.
    pub(crate) heights: Vec<Heights>,
    /// Receipts that were asked about.
    pub(crate) checks: usize,
    /// How often the power was cut.
    pub(crate) cuts: usize,
    /// What nodes run; the program `rhumb` unless it is said.
    pub(crate) program: PathBuf,
    seed: u64,
    variables: Vec<(&'static str, String)>,
    /// Lines of the ledger that have been checked.
    checked: usize,
    /// What the disk kept at the last cut, for whoever looks into a failure.
    kept: Vec<(usize, Image)>,
}

impl Scene {
    /// A founded mesh whose nodes have these environment variables, nothing of it started.
    pub(crate) fn new(nodes: usize, seed: u64, variables: &[(&'static str, &str)]) -> Self {
        Self::with(FoundedMesh::of(nodes), nodes, seed, variables)
    }

    pub(crate) fn with(
        mesh: FoundedMesh,
        nodes: usize,
        seed: u64,
        variables: &[(&'static str, &str)],
    ) -> Self {
        Self {
            mesh,
            rng: Seed::new(seed).child("scene").rng(),
            heights: vec![Heights::default(); nodes],
            checks: 0,
            cuts: 0,
            program: program(),
            seed,
            variables: SMALL
                .iter()
                .chain(variables)
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
            checked: 0,
            kept: Vec::new(),
        }
    }

    /// Watches a node's data directory as it is now.
    pub(crate) fn watch(&self, node: usize) -> Watched {
        let scratch = self.mesh.directory().join(format!("watch-{node}"));
        Watched::over(&self.mesh.data(node), &scratch).expect("a data directory to watch")
    }

    /// Starts a node; it need not be ready.
    pub(crate) fn serve(&self, node: usize, watched: Watched) -> Running {
        let watching = watched.variables();
        let all = self.variables.iter().chain(&watching).map(|(name, value)| (*name, value.as_str()));
        let serving = self.mesh.serve_with(&self.program, node, &all.collect::<Vec<_>>());
        Running { watched, serving }
    }

    /// Waits until a node is ready, or its power is cut. It is a finding when it ends in another way.
    pub(crate) fn starts(&self, node: usize, running: &mut Running) -> Result<bool, String> {
        let admin = self.mesh.admin(node);
        let mut stands = None;
        eventually("the node is ready or ends", || {
            stands = match (running.serving.has_ended(), ask_admin(&admin, "/readyz")) {
                (Some(ended), _) => Some(was_cut(ended, &running.serving).map(|()| false)),
                (None, Some((200, _))) => Some(Ok(true)),
                (None, Some((_, why))) if why.contains("restored") => {
                    Some(Err(format!("{}: {why}", REGIONS[node])))
                }
                _ => None,
            };
            stands.is_some()
        });
        stands.expect("it stands so")
    }

    /// Starts all nodes, and waits until they are ready.
    pub(crate) fn serve_all(&self) -> Result<Vec<Running>, String> {
        let mut nodes: Vec<Running> =
            (0..self.heights.len()).map(|node| self.serve(node, self.watch(node))).collect();
        for (at, node) in nodes.iter_mut().enumerate() {
            self.starts(at, node)?;
        }
        Ok(nodes)
    }

    /// Starts all nodes and creates the pool.
    pub(crate) fn open_shop(&mut self) -> Vec<Running> {
        let nodes = self.serve_all().expect("a fresh mesh starts");
        let created = self.mesh.ask("operator", &["pool", "create", "concert", "--supply", "10000000"]);
        assert_eq!(created.code, 0, "{}", created.text);
        for node in 0..nodes.len() {
            let admin = self.mesh.admin(node);
            let show =
                ["pool", "show", "concert", "--identity", "mesh/clients/us-east-app", "--endpoint", &admin];
            eventually("every region has its share", || {
                self.mesh.rhumb(&show).json["available"].as_u64().is_some_and(|left| left > 1_000_000)
            });
        }
        nodes
    }

    /// Stops nodes in order.
    pub(crate) fn close(&self, nodes: Vec<Running>) {
        for mut node in nodes {
            node.serving.signal("TERM");
            assert!(node.serving.wait_end().success(), "{}", node.serving.log());
        }
    }

    fn customer(&self, what: &str, more: &[String]) -> Child {
        let nodes = (0..self.heights.len()).flat_map(|node| ["--node".to_owned(), self.mesh.address(node)]);
        let log = self.mesh.directory().join("customer.log");
        let log = std::fs::File::options().create(true).append(true).open(log).expect("a log");
        Command::new(beside("customer"))
            .arg(what)
            .args(nodes)
            .args(["--identity", "mesh/clients/us-east-app", "--ledger", LEDGER])
            .args(more)
            .current_dir(self.mesh.directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("customers come")
    }

    /// Customers come, until they are sent home.
    pub(crate) fn buy(&mut self) -> Customers {
        let seed = self.rng.u64().to_string();
        let buying = Customers(self.customer("buy", &["--seed".into(), seed]));
        self.more_lines(60);
        buying
    }

    /// Waits until so many more lines stand in the ledger.
    pub(crate) fn more_lines(&self, more: usize) {
        let so_far = self.lines();
        eventually("customers write down what they are answered", || self.lines() >= so_far + more);
    }

    /// Lines of the ledger.
    pub(crate) fn lines(&self) -> usize {
        let ledger = std::fs::read_to_string(self.mesh.directory().join(LEDGER));
        ledger.map_or(0, |text| text.lines().count())
    }

    /// Asks about what was written since the last check and some of what was before, and compares all sums
    /// with what the nodes count.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        self.check_from(self.checked)
    }

    /// Asks about every receipt.
    pub(crate) fn check_all(&mut self) -> Result<(), String> {
        self.check_from(0)
    }

    fn check_from(&mut self, line: usize) -> Result<(), String> {
        let seed = self.rng.u64().to_string();
        let more = ["--seed".into(), seed, "--from-line".into(), line.to_string()];
        let answer = self.customer("check", &more).wait_with_output().expect("the check ends");
        let log = || std::fs::read_to_string(self.mesh.directory().join("customer.log")).unwrap_or_default();
        let found: Value = serde_json::from_slice(&answer.stdout)
            .map_err(|_| format!("the check came to no end: {}", log()))?;
        self.checked = self.lines();
        self.checks += found["checked"].as_u64().unwrap_or(0) as usize;
        if found["broken"].as_array().is_none_or(|broken| !broken.is_empty()) {
            return Err(format!("an answer was lost: {found}"));
        }
        let audit = self.mesh.ask("client", &["pool", "audit", "concert"]);
        let agree = ["sold", "held"].iter().all(|sum| audit.json[sum] == found[sum]);
        let sound = audit.json["oversold"] == 0
            && ["I1", "I2", "I3", "I4"].iter().all(|invariant| audit.json["invariants"][invariant] == true);
        if agree && sound { Ok(()) } else { Err(format!("receipts say {found}, nodes {}", audit.text)) }
    }

    /// What a node says of itself.
    pub(crate) fn height(&self, node: usize) -> Option<Heights> {
        let (_, status) = ask_admin(&self.mesh.admin(node), "/status")?;
        Heights::of(&serde_json::from_str(&status).ok()?)
    }

    /// Compares what a node that was started says of itself with what it said before.
    pub(crate) fn rises(&mut self, node: usize) -> Result<(), String> {
        let now = self.height(node).ok_or("a ready node says nothing of itself")?;
        match self.heights[node].fallen(now) {
            Some(fallen) => Err(format!("{}: {fallen}", REGIONS[node])),
            None => {
                self.heights[node] = now;
                Ok(())
            }
        }
    }

    /// A running node's power is cut: at a chosen call, or from outside at any moment.
    pub(crate) fn cut_off(&mut self, at: usize, node: &mut Running) -> Result<(), String> {
        let from_outside = self.rng.chance(0.25);
        let lasts = self.rng.below(400);
        let calls = node.watched.calls().expect("a page");
        if !from_outside {
            node.watched.stop_at(calls + 1 + lasts).expect("a page");
        }
        eventually("the power is cut", || {
            if let Some(now) = self.height(at) {
                self.heights[at] = now;
            }
            if from_outside && node.watched.calls().expect("a page") >= calls + lasts {
                node.serving.signal("KILL");
            }
            node.serving.has_ended().is_some()
        });
        was_cut(node.serving.wait_end(), &node.serving)
    }

    /// Puts into a node's data directory what its disk keeps of a process that has ended: nothing that was
    /// not synced in three of ten times, else an arbitrary part.
    pub(crate) fn cut(&mut self, node: usize, ended: Running) -> Result<(), String> {
        let drawn = Seed::new(self.rng.u64());
        let loss = if self.rng.chance(0.3) { Loss::All } else { Loss::Drawn(drawn) };
        self.lose(node, ended, &loss)
    }

    pub(crate) fn lose(&mut self, node: usize, ended: Running, loss: &Loss) -> Result<(), String> {
        let Running { watched, .. } = ended;
        let disk = watched.disk().map_err(|error| error.to_string())?;
        // Who is killed from outside may have made one change that is not written down yet.
        if disk.stopped().is_some() {
            let differences = watched.explained().map_err(|error| error.to_string())?;
            if !differences.is_empty() {
                return Err(format!("the journal does not explain the disk: {}", differences.join("; ")));
            }
        }
        let image = disk.cut(loss);
        image.write(&self.mesh.data(node)).expect("the directory is written");
        self.kept.retain(|(of, _)| *of != node);
        self.kept.push((node, image));
        self.cuts += 1;
        Ok(())
    }
}

/// Of a failure it says how to have it again, and keeps what the disk kept.
impl Drop for Scene {
    #[expect(clippy::print_stdout, reason = "of a test that fails")]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.mesh.keep();
        let kept = self.mesh.directory().join("kept");
        for (node, image) in &self.kept {
            image.write(&kept.join(node.to_string())).ok();
        }
        let (cuts, seed, folder) = (self.cuts, self.seed, self.mesh.directory().display());
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default();
        println!(
            "after {cuts} power cuts of seed {seed}. Again: {SEED}={seed} cargo test --workspace --test it -- {test}\n\
             What the disk kept at the last cut, the logs and the ledger are in {folder}"
        );
    }
}

/// Customers who buy. When this is dropped they stop, whatever they wait for.
pub(crate) struct Customers(Child);

impl Drop for Customers {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().ok();
    }
}

/// The process ended by a cut, and in no other way.
pub(crate) fn was_cut(ended: ExitStatus, node: &Serving) -> Result<(), String> {
    if std::os::unix::process::ExitStatusExt::signal(&ended) == Some(9) {
        return Ok(());
    }
    Err(format!("the node ended by itself: {ended}\n{}", node.log()))
}
