//! Founding a mesh and keeping its certificates, with the real program; what it issues is checked by
//! OpenSSL, which knows nothing of ours.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rhumb_tests::cluster::{Ran, Serving, eventually, free_port, program, run};
use tempfile::TempDir;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// A founded mesh of two nodes that does not run.
struct Founded {
    directory: TempDir,
    us: u16,
    eu: u16,
}

impl Founded {
    fn new() -> Self {
        let (us, eu) = (free_port(), free_port());
        let founded = Self { directory: tempfile::tempdir().expect("a directory"), us, eu };
        let nodes = format!("us-east/n1=127.0.0.1:{us},eu-central/n1=127.0.0.1:{eu}");
        founded.ok(&["mesh", "init", "--nodes", &nodes, "--trust-domain", "mesh.example", "mesh"]);
        founded
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("mesh").join(name)
    }

    fn rhumb(&self, arguments: &[&str]) -> Ran {
        run(self.directory.path(), &[arguments, &["-o", "json"]].concat())
    }

    fn ok(&self, arguments: &[&str]) -> serde_json::Value {
        let ran = self.rhumb(arguments);
        assert_eq!(ran.code, 0, "rhumb {}: {}", arguments.join(" "), ran.text);
        ran.json
    }

    /// The same at another time.
    fn rhumb_after(&self, days: i64, arguments: &[&str]) -> Ran {
        let ran = Command::new(program())
            .args(arguments)
            .args(["-o", "json"])
            .env("RHUMB_TEST_CLOCK_OFFSET_MS", (days * DAY_MS).to_string())
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .output();
        ran.expect("the program starts").into()
    }

    /// Whether OpenSSL agrees, and what it says.
    fn openssl(&self, arguments: &[&str]) -> (bool, String) {
        let ran = Command::new("openssl").args(arguments).current_dir(self.path("")).output();
        let ran = ran.expect("openssl is there (make setup)");
        let said = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (ran.status.success(), said.concat())
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.path("")];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("readable") {
                let path = entry.expect("readable").path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files
    }
}

const NODE: &str = "nodes/us-east-n1/identity/identity.pem";

#[test]
fn openssl_believes_what_is_issued_and_finds_the_names_that_are_promised() {
    let mesh = Founded::new();
    let identities = [
        ("node/n1", NODE),
        ("client/app", "clients/us-east-app/identity.pem"),
        ("operator/admin", "operators/us-east-admin/identity.pem"),
    ];
    for (name, file) in identities {
        for purpose in ["sslserver", "sslclient"] {
            let (believed, said) =
                mesh.openssl(&["verify", "-x509_strict", "-CAfile", "ca/ca.pem", "-purpose", purpose, file]);
            assert!(believed, "{file} as {purpose}: {said}");
        }
        let (_, names) = mesh.openssl(&["x509", "-noout", "-ext", "subjectAltName", "-in", file]);
        let names: Vec<&str> = names.lines().last().unwrap_or_default().trim().split(", ").collect();
        let uri = format!("URI:spiffe://mesh.example/region/us-east/{name}");
        let dns = format!("DNS:{}.us-east.mesh.example", name.rsplit('/').next().expect("a name"));
        assert_eq!(names, [dns.as_str(), uri.as_str()], "{file}");
        let (_, said) = mesh.openssl(&[
            "x509",
            "-noout",
            "-ext",
            "basicConstraints,keyUsage,extendedKeyUsage",
            "-in",
            file,
        ]);
        for part in ["CA:FALSE", "Digital Signature\n", "TLS Web Server Authentication, TLS Web Client"] {
            assert!(said.contains(part), "{part} in {said}");
        }
        let (_, certified) = mesh.openssl(&["x509", "-noout", "-pubkey", "-in", file]);
        let (_, held) = mesh.openssl(&["pkey", "-pubout", "-in", file]);
        assert_eq!(certified, held, "{file}: the key is the certificate's");
    }
    let (_, said) = mesh.openssl(&["x509", "-noout", "-fingerprint", "-sha256", "-serial", "-in", NODE]);
    let said = said.to_lowercase().replace(':', "");
    let shown = mesh.ok(&["cert", "status", &format!("mesh/{NODE}")]);
    for field in ["fingerprint", "serial"] {
        let ours = shown["certificates"][0][field].as_str().expect("text");
        assert!(said.contains(&format!("={ours}")), "{field} {ours} in {said}");
    }
    let (_, valid) =
        mesh.openssl(&["x509", "-noout", "-in", NODE, "-checkend", &(89 * 24 * 3600).to_string()]);
    assert!(valid.contains("will not expire"), "{valid}");
    let (valid, _) =
        mesh.openssl(&["x509", "-noout", "-in", NODE, "-checkend", &(91 * 24 * 3600).to_string()]);
    assert!(!valid, "a node's certificate is valid for 90 days unless asked otherwise");
    let (_, key) = mesh.openssl(&["pkey", "-noout", "-text", "-in", "policy/operator.key"]);
    assert!(key.contains("ED25519"), "{key}");
}

#[test]
fn openssl_refuses_what_was_revoked_and_nothing_else() {
    let mesh = Founded::new();
    let verify = |file: &str| {
        mesh.openssl(&["verify", "-crl_check", "-CAfile", "ca/ca.pem", "-CRLfile", "ca/crl.pem", file])
    };
    let client = "clients/us-east-app/identity.pem";
    assert!(verify(client).0 && verify(NODE).0, "nothing is revoked yet: {}", verify(client).1);
    let revoked = mesh.ok(&["cert", "revoke", "--ca", "mesh/ca", "mesh/clients/us-east-app"]);
    assert_eq!(
        (revoked["holder"].as_str(), revoked["again"].as_bool()),
        (Some("client us-east/app"), Some(false))
    );
    let (believed, said) = verify(client);
    assert!(!believed && said.contains("certificate revoked"), "{said}");
    assert!(verify(NODE).0, "{}", verify(NODE).1);
    let (believed, said) = mesh.openssl(&["crl", "-noout", "-CAfile", "ca/ca.pem", "-in", "ca/crl.pem"]);
    assert!(believed && said.contains("verify OK"), "{said}");

    let told = mesh.rhumb(&["cert", "status", "--ca", "mesh/ca/ca.pem", "mesh/clients/us-east-app"]);
    assert!(told.code == 5 && told.text.contains("it was revoked"), "{}", told.text);
    let serial = revoked["serial"].as_str().expect("text");
    let again = mesh.ok(&["cert", "revoke", "--ca", "mesh/ca", serial]);
    assert_eq!((again["again"].as_bool(), again["number"].as_u64()), (Some(true), Some(2)));
    let stranger = mesh.rhumb(&["cert", "revoke", "--ca", "mesh/ca", "123"]);
    assert_eq!(stranger.code, 2, "never issued: {}", stranger.text);
    assert!(stranger.text.contains("\"123 was not issued here"), "as it was given: {}", stranger.text);
}

#[test]
fn a_mesh_is_founded_once_and_its_keys_are_nobody_elses() {
    let mesh = Founded::new();
    let mut keys = 0;
    for file in mesh.files() {
        let bytes = fs::read(&file).expect("readable");
        if String::from_utf8_lossy(&bytes).contains("PRIVATE KEY") {
            keys += 1;
            let mode = fs::metadata(&file).expect("there").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", file.display());
        }
    }
    assert_eq!(keys, 8, "authority, policy, two nodes, two clients, two operators");
    let before = fs::read(mesh.path("ca/authority.pem")).expect("there");
    let again = mesh.rhumb(&["mesh", "init", "--nodes", "us-east/n1=127.0.0.1:7001", "mesh"]);
    assert_eq!(again.code, 2, "{}", again.text);
    assert!(again.text.contains("holds mesh") && again.text.contains("founded once"), "{}", again.text);
    fs::remove_file(mesh.path("mesh.json")).expect("there");
    let again = mesh.rhumb(&["mesh", "init", "--nodes", "us-east/n1=127.0.0.1:7001", "mesh"]);
    assert_eq!(again.code, 2, "{}", again.text);
    assert!(again.text.contains("is not empty"), "{}", again.text);
    let authority = mesh.rhumb(&["ca", "init", "mesh/ca"]);
    assert!(authority.code == 2 && authority.text.contains("never overwritten"), "{}", authority.text);
    assert_eq!(fs::read(mesh.path("ca/authority.pem")).expect("there"), before);
    let checked = mesh.rhumb(&["config", "check", "--config", "mesh/config"]);
    assert_eq!(checked.code, 0, "its settings are sound: {}", checked.text);
}

#[test]
fn the_state_of_certificates_is_told_and_is_the_exit_code() {
    let mesh = Founded::new();
    let all = ["cert", "status", "mesh/ca", "mesh/nodes/us-east-n1/identity", "mesh/clients/eu-central-app"];
    let well = mesh.ok(&all);
    let holders: Vec<&str> = well["certificates"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|c| c["holder"].as_str())
        .collect();
    assert!(holders[0].starts_with("authority ") && holders[0].ends_with(" of mesh.example"), "{holders:?}");
    assert_eq!(holders[1..], ["node us-east/n1", "client eu-central/app"]);
    let node = &well["certificates"][1];
    assert_eq!(node["spiffe_id"], "spiffe://mesh.example/region/us-east/node/n1");
    let days = node["days_left"].as_i64().expect("a number");
    assert!((89..=90).contains(&days), "{days}: the second in which it was issued may have passed");
    assert_eq!(node["key_mode"], "0600");
    assert_eq!((node["believed"].as_bool(), node["age"].as_str()), (Some(true), Some("fresh")));

    let part = mesh.rhumb(&["cert", "status", "mesh/ca", "nowhere", "mesh/nodes/us-east-n1/identity"]);
    let told = (part.code, part.json["certificates"].as_array().map(Vec::len), &part.json["well"]);
    assert_eq!(told, (3, Some(2), &serde_json::json!(false)), "{}", part.text);
    let missing = &part.json["unreadable"][0];
    assert_eq!(missing["path"], "nowhere");
    assert!(missing["why"].as_str().is_some_and(|why| why.contains("nowhere")), "{missing}");

    let state = |ran: &Ran| {
        let node = &ran.json["certificates"][1];
        (ran.code, node["age"].as_str().unwrap_or_default().to_owned(), node["problems"].to_string())
    };
    let (code, age, _) = state(&mesh.rhumb_after(80, &all));
    assert_eq!((code, age.as_str()), (0, "wearing"), "to be renewed, and valid");
    let (code, age, problems) = state(&mesh.rhumb_after(100, &all));
    assert!(code == 5 && age == "expired" && problems.contains("expired"), "{problems}");
    let (code, age, problems) = state(&mesh.rhumb_after(-2, &all));
    assert!(code == 5 && age == "not_yet_valid" && problems.contains("not valid yet"), "{problems}");

    fs::set_permissions(mesh.path(NODE), fs::Permissions::from_mode(0o640)).expect("changed");
    let (code, _, problems) = state(&mesh.rhumb(&all));
    assert!(code == 5 && problems.contains("chmod 600"), "{problems}");
    fs::set_permissions(mesh.path(NODE), fs::Permissions::from_mode(0o600)).expect("changed");
    mesh.ok(&["ca", "init", "--trust-domain", "mesh.example", "other"]);
    let stranger = mesh.rhumb(&["cert", "status", "--ca", "other/ca.pem", &format!("mesh/{NODE}")]);
    assert!(
        stranger.code == 5 && stranger.text.contains("not issued by this mesh's authority"),
        "{}",
        stranger.text
    );
}

#[test]
fn nodes_take_up_renewals_and_revocations_while_they_serve() {
    let mesh = Founded::new();
    let folder = mesh.directory.path();
    let (us_at, eu_at) = (format!("127.0.0.1:{}", mesh.us), format!("127.0.0.1:{}", mesh.eu));
    let mut us = Serving::start(folder, "mesh/config", "us-east", "n1", &us_at);
    let mut eu = Serving::start(folder, "mesh/config", "eu-central", "n1", &eu_at);
    us.wait_ready();
    eu.wait_ready();
    let admin = ["--endpoint", &us_at, "--endpoint", &eu_at, "--identity", "mesh/operators/us-east-admin"];
    mesh.ok(&[&["pool", "create", "concert", "--supply", "100"][..], &admin].concat());
    let hold = |client: &str| {
        let identity = format!("mesh/clients/{client}");
        let ask =
            ["hold", "concert", "--qty", "1", "--region", "us-east", "--endpoint", &us_at, "--identity"];
        mesh.rhumb(&[&ask[..], &[&identity]].concat())
    };
    assert_eq!(hold("us-east-app").code, 0);

    // A renewed certificate.
    let serial = || us.status()["certificate"]["serial"].as_str().expect("text").to_owned();
    let identity = "mesh/nodes/us-east-n1/identity";
    let renewed =
        mesh.ok(&["cert", "issue", "--ca", "mesh/ca", "--node", "us-east/n1", "--renew", "--out", identity]);
    assert_ne!(renewed["serial"].as_str(), Some(serial().as_str()));
    us.signal("HUP");
    eventually("the new certificate is in force", || renewed["serial"].as_str() == Some(serial().as_str()));
    assert_eq!(us.status()["links"][0]["up"], true);
    assert_eq!(links_lost(&us), 0, "no connection was dropped: {}", us.log());
    assert_eq!(hold("us-east-app").code, 0, "a new connection, to the new certificate");
    let metrics = us.get("/metrics");
    let name = "rhumb_certificate_expiry_timestamp_seconds ";
    let ends = metrics.lines().find_map(|line| line.strip_prefix(name)).expect("exported");
    assert_eq!(ends.parse::<i64>().ok(), us.status()["certificate"]["not_after"].as_i64());

    // One that would not do: put there in one step, so that it is never seen with another mode.
    let before = serial();
    mesh.ok(&["cert", "issue", "--ca", "mesh/ca", "--node", "us-east/n1", "--out", "fresh"]);
    let fresh = folder.join("fresh/identity.pem");
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o644)).expect("changed");
    fs::rename(fresh, mesh.path(NODE)).expect("renamed");
    us.signal("HUP");
    eventually("it is refused", || us.log().contains("the old one stays") && us.log().contains("chmod 600"));
    assert_eq!(serial(), before);

    // A revocation.
    mesh.ok(&["cert", "revoke", "--ca", "mesh/ca", "mesh/clients/us-east-app"]);
    fs::copy(mesh.path("ca/crl.pem"), mesh.path("nodes/us-east-n1/identity/crl.pem")).expect("copied");
    us.signal("HUP");
    eventually("the revoked client is turned away", || {
        let ran = hold("us-east-app");
        ran.code == 3 && ran.text.contains("revoked")
    });
    assert_eq!(hold("eu-central-app").code, 0, "and nobody else");
    assert_eq!(us.status()["links"][0]["up"], true);
    assert_eq!(links_lost(&us), 0, "{}", us.log());
}

/// How often the log tells of a lost connection between nodes.
fn links_lost(node: &Serving) -> usize {
    let log = node.log();
    log.lines().filter(|line| line.contains("disconnected") && line.contains("node eu-central/n1")).count()
}

#[test]
fn a_node_says_in_time_that_its_certificate_ends() {
    let mesh = Founded::new();
    let later = (75 * DAY_MS).to_string();
    let at = format!("127.0.0.1:{}", mesh.us);
    let variables = [("RHUMB_TEST_CLOCK_OFFSET_MS", later.as_str())];
    let node = Serving::start_with(&variables, mesh.directory.path(), "mesh/config", "us-east", "n1", &at);
    eventually("it warns", || {
        let log = node.log();
        log.lines().any(|line| line.contains("the certificate ends soon") && line.contains("days_left=1"))
    });
}

#[test]
fn a_founded_node_on_an_empty_disk_does_not_start() {
    let mesh = Founded::new();
    fs::remove_dir_all(mesh.path("nodes/us-east-n1/data")).expect("there");
    let ran = mesh.rhumb(&["serve", "--config", "mesh/config", "--region", "us-east"]);
    assert_eq!(ran.code, 3, "{}", ran.text);
    assert!(ran.text.contains("An empty disk never initialises a cluster"), "{}", ran.text);
    assert!(!Path::new(&mesh.path("nodes/us-east-n1/data/hot")).exists());
}
