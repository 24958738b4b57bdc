//! The audit log on its way out of the real program: followed over a restart, forwarded to a syslog server that comes and
//! goes, exported for somebody who alone can open it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use age::x25519::Identity;
use base64::prelude::{BASE64_STANDARD, Engine};
use rhumb_tests::cluster::{DevMesh, eventually, program, run, signal};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

const REGIONS: &str = "eu-central,us-east";
/// The region in which `rhumb dev` has its operator, and the node there.
const HOME: &str = "eu-central/n1";
const OPERATOR: &str = "operator eu-central/dev";

/// A command that goes on, and what it has printed so far.
struct Going {
    child: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Going {
    fn start(mesh: &DevMesh, arguments: &[&str]) -> Self {
        let mut child = command(mesh, arguments).stdout(Stdio::piped()).spawn().expect("the program starts");
        let out = Arc::new(Mutex::new(String::new()));
        let read = reader(child.stdout.take().expect("piped"), &out);
        let mut going = Self { child, out, err: Arc::default(), readers: vec![read] };
        going.readers.push(reader(going.child.stderr.take().expect("piped"), &going.err));
        going
    }

    fn says(&self, words: &str) -> bool {
        self.err.lock().expect("no panic").contains(words)
    }

    /// The objects that it printed, one a line.
    fn lines(&self) -> Vec<Value> {
        let out = self.out.lock().expect("no panic");
        out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until it has ended; its code, and all that it said to people.
    fn ended(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().expect("it ends").code();
        self.readers.into_iter().for_each(|reader| reader.join().expect("no panic"));
        let said = self.err.lock().expect("no panic").clone();
        (code, said)
    }
}

fn command(mesh: &DevMesh, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command
        .args(arguments)
        .args(["-o", "json", "--node", HOME, "--data"])
        .arg(mesh.data())
        .current_dir(mesh.directory())
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn reader(from: impl Read + Send + 'static, to: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let to = Arc::clone(to);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            to.lock().expect("no panic").push_str(&(line + "\n"));
        }
    })
}

fn pool(mesh: &DevMesh, name: &str) {
    mesh.ok(&["pool", "create", name, "--supply", "10"]);
}

fn entries(mesh: &DevMesh) -> u64 {
    mesh.ok(&["audit", "checkpoint", "--node", HOME])["entries"].as_u64().expect("a number")
}

#[test]
fn a_followed_log_goes_on_over_a_restart_of_its_node_and_ends_with_its_reader() {
    let mesh = DevMesh::start(REGIONS, "off");
    let tail = Going::start(&mesh, &["audit", "tail", "--follow", "--from", "1", "--records"]);
    let starts = || tail.lines().iter().filter(|line| line["action"] == "node.start").count();
    let pools = || tail.lines().iter().filter(|line| line["action"] == "pool.create").count();
    mesh.ok(&["audit", "tail", "--records", "--node", HOME]);
    let before = entries(&mesh);
    eventually("what is there is shown", || tail.lines().len() as u64 >= before - 1);
    let started = starts();
    mesh.signal(HOME, "STOP");
    eventually("it says that the node is silent", || tail.says("does not answer"));
    mesh.kill_9(HOME);
    eventually("it says that the node is back", || tail.says("answers again; on from entry"));
    eventually("the node's start is shown", || starts() > started);
    // A pool is made at its home: one of so many has it here.
    for number in 0..8 {
        eventually("the mesh takes pools", || {
            mesh.rhumb(&["pool", "create", &format!("pool-{number}"), "--supply", "10"]).code == 0
        });
    }
    eventually("a pool is shown", || pools() > 0);
    let lines = tail.lines();
    let indices: Vec<u64> = lines.iter().map(|line| line["index"].as_u64().expect("a number")).collect();
    assert!(indices.iter().copied().eq(1..=indices.len() as u64), "each once and in order: {indices:?}");
    let opened = lines.iter().find(|line| line["action"] == "pool.create").expect("one");
    assert_eq!(opened["record"]["actor"], OPERATOR, "{opened}");
    let own = lines.iter().filter(|line| line["action"] == "audit.read" && line["record"].is_null()).count();
    assert!(own > 0, "its own readings are not read again: {lines:?}");
    signal(&tail.child, "INT");
    assert_eq!(tail.ended().0, Some(130));

    // Nobody reads any more, and nothing new comes.
    let mut quiet = command(&mesh, &["audit", "tail", "--follow", "-n", "1"]);
    let mut quiet = quiet.stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut out = BufReader::new(quiet.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("an entry");
    assert!(line.contains("\"index\""), "{line}");
    drop(out);
    assert_eq!(quiet.wait().expect("it ends").code(), Some(0));
}

/// A syslog server: takes messages behind their lengths.
struct Receiver {
    port: u16,
    came: Arc<Mutex<Vec<String>>>,
    listening: Option<(JoinHandle<()>, Arc<Mutex<bool>>)>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let mut receiver = Self { port, came: Arc::default(), listening: None };
        receiver.listen(listener);
        receiver
    }

    fn address(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    fn listen(&mut self, listener: TcpListener) {
        let (came, stop) = (Arc::clone(&self.came), Arc::new(Mutex::new(false)));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut taken = Vec::new();
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                if *stopping.lock().expect("no panic") {
                    break;
                }
                let (came, kept) = (Arc::clone(&came), stream.try_clone().expect("a handle"));
                taken.push((kept, std::thread::spawn(move || take(stream, &came))));
            }
            // Both go: what listens, and what was accepted.
            drop(listener);
            for (stream, taking) in taken {
                stream.shutdown(std::net::Shutdown::Both).ok();
                taking.join().expect("no panic");
            }
        });
        self.listening = Some((thread, stop));
    }

    fn stop(&mut self) {
        let (thread, stop) = self.listening.take().expect("it listens");
        *stop.lock().expect("no panic") = true;
        TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        thread.join().expect("no panic");
    }

    fn start_again(&mut self) {
        let mut listener = None;
        eventually("the port is free again", || {
            listener = TcpListener::bind(("127.0.0.1", self.port)).ok();
            listener.is_some()
        });
        self.listen(listener.expect("bound"));
    }

    /// How often each entry has come, with its message.
    fn entries(&self) -> BTreeMap<u64, Vec<String>> {
        let mut entries: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for message in self.came.lock().expect("no panic").iter() {
            let index = param(message, "index").parse().expect("a number");
            entries.entry(index).or_default().push(message.clone());
        }
        entries
    }
}

/// Reads messages until the connection ends.
fn take(stream: impl Read, came: &Mutex<Vec<String>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = Vec::new();
        if stream.read_until(b' ', &mut length).is_err() || length.pop() != Some(b' ') {
            return;
        }
        let length = String::from_utf8(length).expect("digits").parse().expect("a length");
        let mut message = vec![0; length];
        if stream.read_exact(&mut message).is_err() {
            return;
        }
        came.lock().expect("no panic").push(String::from_utf8(message).expect("text"));
    }
}

fn param<'a>(message: &'a str, name: &str) -> &'a str {
    let (_, rest) =
        message.split_once(&format!(" {name}=\"")).unwrap_or_else(|| panic!("no {name}: {message}"));
    rest.split_once('"').expect("an end").0
}

/// What the state file says is next.
fn mark(mesh: &DevMesh) -> u64 {
    let text = fs::read_to_string(mesh.directory().join("siem.state")).unwrap_or_default();
    serde_json::from_str::<Value>(&text).map_or(0, |state| state["next"].as_u64().expect("a number"))
}

/// The leaves of a log, as its export has them.
fn leaves(mesh: &DevMesh, upto: u64) -> Vec<String> {
    eventually("they are published", || {
        mesh.ok(&["audit", "checkpoint", "--node", HOME])["published"].as_u64() >= Some(upto)
    });
    mesh.ok(&["audit", "export", "--node", HOME, "--format", "json", "--out", "entries.jsonl"]);
    let text = fs::read_to_string(mesh.directory().join("entries.jsonl")).expect("an export");
    let leaf = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let entry = BASE64_STANDARD.decode(line["entry"].as_str().expect("text")).expect("base64");
        rhumb_verify::hash::leaf(&entry).to_string()
    };
    text.lines().take(usize::try_from(upto).expect("few")).map(leaf).collect()
}

#[test]
fn every_entry_is_forwarded_once_over_restarts_of_the_server_and_of_the_forwarder() {
    let mesh = DevMesh::start(REGIONS, "off");
    let mut siem = Receiver::start();
    pool(&mesh, "before");
    mesh.ok(&["audit", "tail", "--records", "--node", HOME]);
    mesh.ok(&["audit", "erase-subject", OPERATOR, "--node", HOME]);
    let first = entries(&mesh);
    let address = siem.address();
    let forward = ["audit", "forward", "--syslog", &address, "--state", "siem.state", "--records"];
    let going = Going::start(&mesh, &forward);
    let has = |siem: &Receiver, upto: u64| siem.entries().len() as u64 >= upto && mark(&mesh) >= upto;
    eventually("what is there is sent", || has(&siem, first));

    // The server is away, and entries are appended meanwhile.
    eventually("nothing is on its way", || mark(&mesh) == entries(&mesh));
    siem.stop();
    eventually("it says that the server is away", || going.says("ended the connection"));
    for number in 0..4 {
        mesh.ok(&["audit", "tail", "-n", &format!("{}", number + 1), "--records", "--node", HOME]);
    }
    let (second, written) = (entries(&mesh), mark(&mesh));
    assert!(second >= first + 4 && written < second, "{first} {written} {second}");
    siem.start_again();
    eventually("what came meanwhile is sent", || has(&siem, second));
    assert!(going.says("is there again; on from entry"));

    // The forwarder is stopped, and entries are appended meanwhile.
    eventually("nothing is on its way", || mark(&mesh) == entries(&mesh));
    signal(&going.child, "TERM");
    let (code, said) = going.ended();
    assert_eq!(code, Some(0), "{said}");
    let stopped = mark(&mesh);
    assert_eq!(siem.entries().len() as u64, stopped, "the mark is behind what was sent, and not short of it");
    mesh.ok(&["audit", "tail", "--records", "--node", HOME]);
    let third = entries(&mesh);
    assert!(third > stopped);
    let busy = Going::start(&mesh, &forward);
    eventually("it goes on where it was", || has(&siem, third));
    let second_one = mesh.rhumb(&[&forward[..], &["--node", HOME]].concat());
    assert_eq!(second_one.code, 2, "{}", second_one.text);
    assert!(
        second_one.text.contains("another command passes a log on with this file"),
        "{}",
        second_one.text
    );
    signal(&busy.child, "INT");
    assert_eq!(busy.ended().0, Some(130));

    let (came, upto) = (siem.entries(), mark(&mesh));
    assert!(came.keys().copied().eq(0..upto), "all of {upto}: {:?}", came.keys());
    let leaves = leaves(&mesh, upto);
    for ((index, messages), leaf) in came.iter().zip(&leaves) {
        assert_eq!(messages.len(), 1, "entry {index} came more than once: {messages:?}");
        let message = &messages[0];
        assert_eq!(
            (param(message, "leaf"), param(message, "region")),
            (leaf.as_str(), "eu-central"),
            "{message}"
        );
        assert!(message.starts_with('<') && message.contains(">1 2"), "{message}");
    }
    let of = |action: &str| {
        came.values().flatten().filter(|one| param(one, "action") == action).collect::<Vec<_>>()
    };
    assert!(of("node.start")[0].contains("] {\"action\":\"node.start\""), "{:?}", of("node.start"));
    let erased = of("audit.read")[0];
    assert!(erased.ends_with("] audit.read (erased)") && !erased.contains(OPERATOR), "{erased}");
    // What the file says must be so of the log.
    let file = mesh.directory().join("siem.state");
    let text = fs::read_to_string(&file).expect("a state").replace(leaves.last().expect("one"), &leaves[0]);
    fs::write(&file, text).expect("written");
    let other = mesh.rhumb(&[&forward[..], &["--node", HOME]].concat());
    assert_eq!(other.code, 3, "{}", other.text);
    assert!(other.text.contains("its history was rewritten"), "{}", other.text);
}

#[test]
fn what_a_server_that_was_killed_had_not_read_goes_again() {
    let mesh = DevMesh::start(REGIONS, "off");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut siem = Receiver {
        port: listener.local_addr().expect("bound").port(),
        came: Arc::default(),
        listening: None,
    };
    let first = entries(&mesh);
    let address = siem.address();
    let arguments = ["audit", "forward", "--syslog", &address, "--state", "siem.state", "--entries-only"];
    let going = Going::start(&mesh, &arguments);
    let (unread, _) = listener.accept().expect("a connection");
    eventually("its kernel has them", || mark(&mesh) >= first);
    drop(unread);
    eventually("they go again", || going.says("entries go again"));
    siem.listen(listener);
    eventually("they are there", || siem.entries().len() as u64 >= first);
    signal(&going.child, "TERM");
    let (code, said) = going.ended();
    assert_eq!(code, Some(0), "{said}");
    let came = siem.entries();
    assert!(came.keys().copied().eq(0..mark(&mesh)), "{:?}", came.keys());
    let all = siem.came.lock().expect("no panic").concat();
    assert!(!all.contains("outcome=") && all.contains("] node.start"), "no record was opened: {all}");
    let reads = mesh.ok(&["audit", "query", "--action", "audit.read", "--node", HOME]);
    assert_eq!(reads["found"], serde_json::json!([]));
}

/// A server's certificate for `localhost`, which is its own authority, and what the server needs of it.
fn certificate() -> (String, Arc<ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate and its key");
    (made.cert.pem(), Arc::new(config))
}

#[test]
fn over_tls_it_goes_to_a_server_that_its_authority_signed_and_to_no_other() {
    let mesh = DevMesh::start(REGIONS, "off");
    let ((ca, config), (other, _)) = (certificate(), certificate());
    let (ca, other) = (write(mesh.directory(), "ca.pem", &ca), write(mesh.directory(), "other.pem", &other));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tls://localhost:{}", listener.local_addr().expect("bound").port());
    let came: Arc<Mutex<Vec<String>>> = Arc::default();
    let taken = Arc::clone(&came);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let server = ServerConnection::new(Arc::clone(&config)).expect("a server");
            take(StreamOwned::new(server, stream), &taken);
        }
    });
    let forward = ["audit", "forward", "--syslog", &address, "--entries-only", "--ca"];
    let wrong = Going::start(&mesh, &[&forward[..], &[&other, "--state", "other.state"]].concat());
    eventually("it is not believed", || wrong.says("is not reached (invalid peer certificate"));
    signal(&wrong.child, "INT");
    assert_eq!(wrong.ended().0, Some(130));
    assert!(came.lock().expect("no panic").is_empty());
    let right = Going::start(&mesh, &[&forward[..], &[&ca, "--state", "siem.state"]].concat());
    let first = entries(&mesh);
    eventually("what is there is sent", || came.lock().expect("no panic").len() as u64 >= first);
    signal(&right.child, "TERM");
    let (code, said) = right.ended();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(came.lock().expect("no panic").len() as u64, mark(&mesh));
}

#[test]
fn an_encrypted_export_is_opened_by_its_recipient_and_verified() {
    let mesh = DevMesh::start(REGIONS, "off");
    let (ours, other) = (Identity::generate(), Identity::generate());
    let to = ours.to_public().to_string();
    let mut view = Value::Null;
    eventually("a checkpoint is published", || {
        view = mesh.rhumb(&["audit", "checkpoint", "--node", HOME]).json;
        view["published"].as_u64() > Some(0)
    });
    let export = ["audit", "export", "--node", HOME, "--records", "--out", "log.tar.age", "--encrypt"];
    let refused = mesh.rhumb(&[&export[..], &["ssh-ed25519 AAAA"]].concat());
    assert_eq!(refused.code, 2, "{}", refused.text);
    assert!(refused.text.contains("expected a recipient age1"), "{}", refused.text);
    let done = mesh.ok(&[&export[..], &[to.as_str()]].concat());
    assert_eq!(done["encrypted"], true, "{done}");
    let again = mesh.rhumb(&[&export[..], &[to.as_str()]].concat());
    assert!(again.code == 2 && again.text.contains("is there already"), "{}", again.text);

    let sealed = fs::read(mesh.directory().join("log.tar.age")).expect("an export");
    age::decrypt(&other, &sealed).expect_err("it is not for others");
    let archive = age::decrypt(&ours, &sealed).expect("it is for us");
    assert!(holds(&archive, "node.start") && !holds(&sealed, "node.start"));
    let beside: Vec<_> = fs::read_dir(mesh.directory()).expect("a folder").flatten().collect();
    let plain =
        beside.iter().filter(|file| fs::read(file.path()).is_ok_and(|bytes| holds(&bytes, "node.start")));
    assert_eq!(plain.count(), 0, "nothing of it lies there as it is");
    let log = mesh.directory().join("log");
    tar::Archive::new(&archive[..]).unpack(&log).expect("unpacked");
    assert!(log.join("records.jsonl").is_file());
    let policy = write(mesh.directory(), "auditors.policy", view["policy"].as_str().expect("a text"));
    let verdict =
        run(mesh.directory(), &["audit", "verify", "--policy", &policy, "--export", "log", "-o", "json"]);
    assert!(verdict.code == 0 && verdict.json["records"].as_u64() > Some(0), "{}", verdict.text);

    mesh.ok(&[
        "audit",
        "export",
        "--node",
        HOME,
        "--format",
        "csv",
        "--out",
        "log.csv.age",
        "--encrypt",
        &to,
    ]);
    let sealed = fs::read(mesh.directory().join("log.csv.age")).expect("an export");
    let csv = age::decrypt(&ours, &sealed).expect("it is for us");
    assert!(csv.starts_with(b"index,time,action,commitment,record\n0,"));
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|part| part == word.as_bytes())
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).expect("a file");
    path.to_str().expect("a path is text").to_owned()
}
