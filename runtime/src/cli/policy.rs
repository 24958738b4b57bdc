//! `rhumb policy sign`, `check`, `show`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use rhumb_core::Region;
use rhumb_topology::policy::{
    OperatorKey, OperatorKeys, OperatorPublicKey, Policy, PolicyError, PolicyErrors, PolicySnapshot,
    SignedPolicy,
};
use serde::Serialize;

use super::cert::folder_and_name;
use super::output::{Done, Failure, Output};
use crate::client::now_ms;
use crate::founding::POLICY_KEY_FILE;
use crate::secrets::{Environment, Files, Secret, Secrets};

/// The residency policy: which class of data may go where.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Sign a policy file; the signature is written beside it.
    Sign(Sign),
    /// Check a policy file, and its signature if a key is given.
    Check(Check),
    /// Say in words what a policy file allows.
    Show(Show),
}

impl PolicyCommand {
    pub(super) fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Self::Sign(sign) => sign.run(output),
            Self::Check(check) => check.run(output),
            Self::Show(show) => show.run(output),
        }
    }
}

/// Sign a policy.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb policy sign --key .rhumb/dev/config/operator.key .rhumb/dev/config/policy.toml"
)]
pub struct Sign {
    /// The policy file; the signature goes to FILE.sig.
    file: PathBuf,
    /// The operator's secret key (Ed25519, PKCS#8 as PEM or DER), which nobody else may read; otherwise
    /// the environment variable RHUMB_SECRET_OPERATOR_KEY has it (as PEM).
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct SignAnswer {
    policy: PathBuf,
    signature: PathBuf,
    version: u64,
    key: String,
}

impl Sign {
    fn run(self, output: &Output) -> Result<Done, Failure> {
        let bytes = read(&self.file)?;
        let policy = match parse(&bytes) {
            Ok(policy) => policy,
            Err(errors) => return Ok(faulty(&self.file, &errors, output)),
        };
        let key = operator_key(self.key.as_deref())?;
        let signature = signature_of(&self.file);
        fs::write(&signature, key.sign(&bytes))
            .with_context(|| format!("cannot write {}", signature.display()))?;
        let key = key.public().id().to_string();
        let text = format!(
            "{} version {} signed by {key}: {}",
            self.file.display(),
            policy.version,
            signature.display()
        );
        output.answer(&SignAnswer { policy: self.file, signature, version: policy.version, key }, text);
        Ok(Done::Well)
    }
}

/// The operator's secret key.
fn operator_key(file: Option<&Path>) -> anyhow::Result<OperatorKey> {
    let secret = match file {
        Some(file) => {
            let (folder, name) = folder_and_name(file)?;
            Files::of(folder).read(name)?
        }
        None => Environment::ours().read(POLICY_KEY_FILE)?,
    };
    let der = match pem::parse(secret.bytes()) {
        Ok(pem) => Secret::new(pem.into_contents()),
        Err(_) => secret,
    };
    let place = file.map_or_else(|| "the environment's".to_owned(), |file| file.display().to_string());
    OperatorKey::from_pkcs8(der.bytes()).with_context(|| format!("{place} is no operator's key"))
}

/// Check a policy.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb policy check policy.toml\n  rhumb policy check policy.toml --key $(cat .rhumb/dev/config/operator.pub)"
)]
pub struct Check {
    /// The policy file.
    file: PathBuf,
    /// Public keys of operators; FILE.sig must be of one of them.
    #[arg(long, value_name = "HEX", value_delimiter = ',')]
    key: Vec<OperatorPublicKey>,
}

#[derive(Debug, Serialize)]
struct CheckAnswer {
    policy: PathBuf,
    valid: bool,
    version: Option<u64>,
    signed_by: Option<String>,
    errors: Vec<PolicyError>,
    rejected: Option<String>,
}

impl Check {
    fn run(self, output: &Output) -> Result<Done, Failure> {
        let bytes = read(&self.file)?;
        let policy = match parse(&bytes) {
            Ok(policy) => policy,
            Err(errors) => return Ok(faulty(&self.file, &errors, output)),
        };
        let mut answer = CheckAnswer {
            policy: self.file.clone(),
            valid: true,
            version: Some(policy.version),
            signed_by: None,
            errors: Vec::new(),
            rejected: None,
        };
        let mut text = format!("{} version {} is well formed", self.file.display(), policy.version);
        if !self.key.is_empty() {
            let keys: OperatorKeys = self.key.into_iter().collect();
            let signature = read(&signature_of(&self.file))?;
            match SignedPolicy::verify(&bytes, &String::from_utf8_lossy(&signature), &keys) {
                Ok(signed) => {
                    let by = signed.signed_by.to_string();
                    text = format!("{text} and signed by {by}");
                    answer.signed_by = Some(by);
                }
                Err(rejected) => {
                    text = format!("{text}, but {rejected}");
                    answer.valid = false;
                    answer.rejected = Some(rejected.to_string());
                }
            }
        }
        output.answer(&answer, text);
        Ok(if answer.valid { Done::Well } else { Done::False })
    }
}

/// Show a policy.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb policy show .rhumb/dev/config/policy.toml --regions us-east,eu-central"
)]
pub struct Show {
    /// The policy file.
    file: PathBuf,
    /// The regions of the mesh, so that those without a rule are named.
    #[arg(long, value_name = "REGION,…", value_delimiter = ',')]
    regions: Vec<Region>,
}

impl Show {
    fn run(self, output: &Output) -> Result<Done, Failure> {
        let bytes = read(&self.file)?;
        let policy = match parse(&bytes) {
            Ok(policy) => policy,
            Err(errors) => return Ok(faulty(&self.file, &errors, output)),
        };
        let regions: Vec<Region> = match self.regions.is_empty() {
            true => policy.regions().into_iter().cloned().collect(),
            false => self.regions,
        };
        let text = PolicySnapshot::compile(policy.clone(), &regions, now_ms()).describe();
        output.answer(&policy, text.trim_end());
        Ok(Done::Well)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    Ok(fs::read(file).with_context(|| format!("cannot read {}", file.display()))?)
}

fn parse(bytes: &[u8]) -> Result<Policy, PolicyErrors> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        PolicyErrors(vec![PolicyError { line, column: 1, what: "the file is not UTF-8 from here on".into() }])
    })?;
    Policy::parse_for_signing(text, now_ms())
}

/// The signature's file: the policy's, with `.sig` behind it.
fn signature_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

fn faulty(file: &Path, errors: &PolicyErrors, output: &Output) -> Done {
    let answer = CheckAnswer {
        policy: file.to_owned(),
        valid: false,
        version: None,
        signed_by: None,
        errors: errors.0.clone(),
        rejected: None,
    };
    output.answer(&answer, format_args!("{}: {errors}", file.display()));
    Done::False
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;

    const POLICY: &str = "version = 3\n[jurisdictions]\nus = [\"us-east\"]\n\
        [classes.inventory]\nhold = [\"all\"]\nread = [\"all\"]\ncarry = [\"all\"]\n";

    #[test]
    fn what_is_signed_checks_and_what_is_changed_after_does_not() {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("policy.toml");
        let key_file = folder.path().join("operator.key");
        let key = OperatorKey::from_seed([7; 32]);
        fs::write(&file, POLICY).expect("writes");
        crate::secrets::create(&key_file, &Secret::new(key.to_pkcs8())).expect("writes");
        let output = Output::new(Format::Json);
        let check = |keys: Vec<OperatorPublicKey>| Check { file: file.clone(), key: keys }.run(&output);
        assert!(check(vec![key.public()]).is_err(), "there is no signature yet");
        let sign = || Sign { file: file.clone(), key: Some(key_file.clone()) }.run(&output).expect("reads");
        assert_eq!(sign(), Done::Well);
        assert_eq!(check(vec![key.public()]).expect("reads"), Done::Well);
        let stranger = OperatorKey::from_seed([8; 32]).public();
        assert_eq!(check(vec![stranger]).expect("reads"), Done::False);
        fs::write(&file, POLICY.replace("= 3", "= 4")).expect("writes");
        assert_eq!(check(vec![key.public()]).expect("reads"), Done::False);
        assert_eq!(check(Vec::new()).expect("reads"), Done::Well, "well formed all the same");
        fs::write(&file, "version = 0").expect("writes");
        assert_eq!(sign(), Done::False, "a faulty policy is not signed");
        let show = Show { file: file.clone(), regions: Vec::new() };
        assert_eq!(show.run(&output).expect("reads"), Done::False);
    }

    #[test]
    fn a_key_is_read_as_pem_or_der_and_only_if_nobody_else_can() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a directory");
        let key = OperatorKey::from_seed([7; 32]);
        let pem = pem::encode(&pem::Pem::new("PRIVATE KEY", key.to_pkcs8()));
        for (name, bytes) in [("pem", pem.into_bytes()), ("der", key.to_pkcs8())] {
            let file = folder.path().join(name);
            crate::secrets::create(&file, &Secret::new(bytes)).expect("writes");
            assert_eq!(operator_key(Some(&file)).expect("readable").public(), key.public(), "{name}");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("changed");
            let refused = operator_key(Some(&file)).expect_err("refused").to_string();
            assert!(refused.contains("chmod 600"), "{refused}");
        }
        let missing = operator_key(Some(&folder.path().join("operator.key"))).expect_err("none").to_string();
        assert!(missing.contains("rhumb mesh init"), "{missing}");
    }
}
