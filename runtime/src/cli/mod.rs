//! The program `rhumb`: its commands, what they print, and with which code they end.
//!
//! * It decides: the command line, the words and field names of answers, exit codes.
//! * It never does: print a secret, or end with 0 when what was asked for was not done.
//!
//! `docs/cli.md` lists the field names and exit codes; they are stable.

pub mod advise;
mod args;
pub mod audit;
pub mod audit_log;
pub mod ca;
pub mod cert;
pub mod clock;
pub mod config;
mod connect;
pub mod dead_letters;
pub mod demo;
pub mod dev;
pub mod doctor;
mod fleet;
mod foreign;
pub mod give_back;
pub mod hold;
pub mod keyspace;
pub mod kv;
pub mod load;
pub mod manual;
pub mod mesh;
pub mod new_disk;
pub mod new_ranges;
pub mod output;
pub mod placement;
pub mod policy;
pub mod pool;
pub mod pool_list;
pub mod range;
pub mod region;
pub mod serve;
pub mod snapshot;
pub mod status;
pub mod subject;
mod traces;
pub mod version;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};

use output::{Done, Failure, Format, Output};
use traces::Traces;

use crate::settings::{LogFilter, LogSettings};
use crate::telemetry::log::Log;
use crate::telemetry::{self, Telemetry};

/// A runtime for services that live in many regions at once.
#[derive(Debug, Parser)]
#[command(
    name = "rhumb",
    version,
    after_help = "Examples:\n  rhumb demo\n  rhumb dev\n  rhumb pool create concert --supply 100\n  rhumb hold concert --qty 2 --region eu-central\n\nExit codes: 0 done; 1 refused; 2 usage or settings; 3 fault or unreachable; 4 outcome unknown; 5 a check or verdict is false."
)]
pub struct Cli {
    /// How answers are printed.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,
    /// Say more on standard error; twice for all.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Dev(dev::Dev),
    Serve(serve::Serve),
    Status(status::Status),
    #[command(subcommand)]
    Clock(clock::ClockCommand),
    #[command(subcommand)]
    Mesh(mesh::MeshCommand),
    #[command(subcommand)]
    Config(config::ConfigCommand),
    #[command(subcommand)]
    Ca(ca::CaCommand),
    #[command(subcommand)]
    Cert(cert::CertCommand),
    #[command(subcommand)]
    Pool(pool::Pool),
    Hold(hold::Hold),
    Confirm(hold::Confirm),
    Release(hold::Release),
    Return(give_back::Return),
    #[command(subcommand)]
    Keyspace(keyspace::KeyspaceCommand),
    #[command(subcommand)]
    Kv(kv::KvCommand),
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    #[command(subcommand)]
    Subject(subject::SubjectCommand),
    #[command(subcommand)]
    Range(range::RangeCommand),
    #[command(subcommand)]
    Region(region::RegionCommand),
    #[command(subcommand)]
    Placement(placement::PlacementCommand),
    #[command(subcommand)]
    Audit(audit_log::AuditCommand),
    #[command(subcommand)]
    Load(load::LoadCommand),
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLettersCommand),
    Doctor(doctor::Doctor),
    Completions(manual::Completions),
    #[command(name = "man")]
    Manual(manual::Manual),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::given(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let output = Output::new(cli.output);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output.end(Err(Failure::local(error))),
    };
    let ended = runtime.block_on(cli.run(&output));
    // Threads that still read standard input or a name server must not hold the process.
    runtime.shutdown_background();
    output.end(ended)
}

impl Cli {
    /// The command line that somebody gave, the program's name in front.
    fn given(line: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let mut matches = args::with_hyphens(Self::command()).try_get_matches_from(line)?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut Self::command()))
    }

    async fn run(self, output: &Output) -> Result<Done, Failure> {
        if matches!(self.command, Command::Serve(_)) {
            return self.command.run(output).await;
        }
        let (traces, why_none) = Traces::begin(self.verbose > 0);
        let log = log_to_stderr(self.verbose, traces.telemetry());
        tokio::spawn(log.clone().follow());
        if let Some(why) = why_none {
            tracing::warn!(why, "this command has no spans of its own");
        }
        let done = self.command.run(output).await;
        traces.end().await;
        log.end();
        done
    }
}

impl Command {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Command::Demo(demo) => demo.run(output).await,
            Command::Dev(dev) => dev.run().await.map(|()| Done::Well).map_err(Failure::from),
            Command::Serve(serve) => serve.run().await,
            Command::Status(status) => status.run(output).await,
            Command::Clock(clock) => clock.run(output).await,
            Command::Mesh(mesh) => mesh.run(output).await,
            Command::Ca(ca) => ca.run(output).await,
            Command::Cert(cert) => cert.run(output).await,
            Command::Config(config) => config.run(output).await,
            Command::Pool(pool) => pool.run(output).await,
            Command::Hold(hold) => hold.run(output).await,
            Command::Confirm(confirm) => confirm.run(output).await,
            Command::Release(release) => release.run(output).await,
            Command::Return(request) => request.run(output).await,
            Command::Keyspace(keyspace) => keyspace.run(output).await,
            Command::Kv(kv) => kv.run(output).await,
            Command::Snapshot(snapshot) => snapshot.run(output).await,
            Command::Subject(subject) => subject.run(output).await,
            Command::Range(range) => range.run(output).await,
            Command::Region(region) => region.run(output).await,
            Command::Placement(placement) => placement.run(output).await,
            Command::Audit(audit) => audit.run(output).await,
            Command::Load(load) => load.run(output).await,
            Command::Policy(policy) => policy.run(output),
            Command::DeadLetters(letters) => letters.run(output).await,
            Command::Doctor(doctor) => doctor.run(output).await,
            Command::Completions(completions) => completions.run(output),
            Command::Manual(manual) => manual.run(output),
        }
    }
}

fn log_to_stderr(verbose: u8, traces: Option<&Telemetry>) -> Log {
    let filter = match verbose {
        0 => "rhumb=warn,error",
        1 => "info",
        _ => "debug",
    };
    let filter = LogFilter::try_from(filter.to_owned()).unwrap_or_default();
    telemetry::log_to_stderr(&LogSettings { filter, ..LogSettings::default() }, traces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_command_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let is_group = command.has_subcommands() && path != " rhumb";
            assert!(is_group || help.contains("rhumb "), "{path} --help has no example");
            assert!(command.get_about().is_some(), "{path} says not what it does");
            command.get_subcommands().for_each(|sub| check(sub, &path));
        }
        Cli::command().debug_assert();
        check(&Cli::command(), "");
    }

    #[test]
    fn what_is_missing_is_told_with_all_ways_to_give_it() {
        let told = Cli::given("rhumb cert issue --ca ca --out out".split(' ')).expect_err("for whom?");
        let told = told.to_string();
        for way in ["--node", "--client", "--operator"] {
            assert!(told.contains(way), "{told}");
        }
    }

    /// Whatever else is missing of a command: what is wrong with a value is said first.
    #[test]
    fn every_option_that_takes_a_number_or_a_time_says_what_would_be_right() {
        fn check(command: &clap::Command, path: &[&str], checked: &mut usize) {
            let path = [path, &[command.get_name()]].concat();
            for arg in command.get_arguments().filter(|arg| args::is_counted(arg)) {
                let Some(long) = arg.get_long().map(|long| format!("--{long}")) else { continue };
                for wrong in ["many", "-1", "-5s"] {
                    let line = [&path[..], &[long.as_str(), wrong]].concat();
                    let said = Cli::given(line).expect_err(wrong).to_string();
                    assert!(said.contains("invalid value") && said.contains("expected "), "{said}");
                    *checked += 1;
                }
            }
            command.get_subcommands().for_each(|sub| check(sub, &path, checked));
        }
        let mut checked = 0;
        check(&Cli::command(), &[], &mut checked);
        assert!(checked > 100, "{checked}");
    }

    #[test]
    fn what_is_no_number_no_version_and_no_time_is_said_with_what_would_be_right() {
        for (line, right) in [
            (
                "rhumb kv put profiles ann 1 --if-version x",
                "\"x\" is not a version; expected one as an answer said it",
            ),
            ("rhumb kv get profiles ann --as-of -5s", "\"-5s\" is no time; expected a version, how long ago"),
            (
                "rhumb kv put profiles ann 1 --schema -1",
                "\"-1\" is not a whole number; expected one such as 17",
            ),
            ("rhumb range check two", "\"two\" is not a whole number"),
            ("rhumb range check -2", "\"-2\" is not a whole number"),
            ("rhumb audit prove 3 x", "\"x\" is not a whole number"),
            ("rhumb clock drill --node us-east/n1 --for 2h", "expected 1ms to 60s"),
        ] {
            let said = Cli::given(line.split(' ')).expect_err(line).to_string();
            assert!(said.contains(right) && !said.contains("tip:"), "{said}");
        }
    }

    #[test]
    fn what_is_wrong_on_the_command_line_is_refused() {
        for (line, right) in [
            ("rhumb pool create concert --supply 100 --weights us-east=50,eu-central=30", true),
            ("rhumb pool create concert --supply 0", false),
            ("rhumb pool create Concert --supply 1", false),
            ("rhumb pool create concert --supply 1 --weights us-east", false),
            ("rhumb pool list --region us-east", true),
            ("rhumb pool list concert", false),
            ("rhumb hold concert --qty 1 --region us-east --ttl 5m --key abc", true),
            ("rhumb hold concert --qty 0", false),
            ("rhumb hold concert --qty 281474976710656 --ttl 1d", true),
            ("rhumb hold concert --qty 281474976710657", false),
            ("rhumb hold concert --ttl 0s", false),
            ("rhumb return concert/us-east/n1/a/1 --qty 281474976710657", false),
            ("rhumb load escrow concert --rate 1 --for 10s --qty 281474976710657 --receipts r.jsonl", false),
            ("rhumb hold concert --ttl 5", false),
            ("rhumb hold concert --key k1:x", false),
            ("rhumb confirm concert/us-east/n1/a/1 -o json", true),
            ("rhumb confirm 17", false),
            ("rhumb keyspace create profiles --class inventory --replication 3", true),
            ("rhumb keyspace create profiles", false),
            ("rhumb keyspace archive profiles", true),
            ("rhumb keyspace purge", false),
            ("rhumb kv put profiles ann hello --if-absent", true),
            ("rhumb kv put profiles ann hello --if-absent --if-version 7", false),
            ("rhumb kv get profiles ann --consistency bounded=5s", true),
            ("rhumb kv get profiles ann --consistency bounded", false),
            ("rhumb kv get profiles ann --consistency eventual --as-of 30s", false),
            ("rhumb kv scan profiles --from a --to b --limit 10", true),
            ("rhumb kv batch profiles --put ann=1 --del bob", true),
            ("rhumb kv batch profiles", false),
            ("rhumb region ls --check", true),
            ("rhumb kv batch people --put ann=1 --subject ann", true),
            ("rhumb subject erase ann --class personal", true),
            ("rhumb subject erase", false),
            ("rhumb snapshot create profiles monday --keep 7d", true),
            ("rhumb snapshot export profiles monday", false),
            ("rhumb snapshot verify profiles.snapshot", true),
            ("rhumb audit tail --count 5 --records", true),
            ("rhumb audit query --action pool.create --last 1h", true),
            ("rhumb audit prove 17 --out e17.tlog-proof", true),
            ("rhumb audit prove", false),
            ("rhumb audit verify --policy auditors.policy --proof e17.tlog-proof", true),
            ("rhumb audit verify --policy auditors.policy", false),
            ("rhumb audit verify --proof e17.tlog-proof", false),
            ("rhumb audit export --format tiles --out log", true),
            ("rhumb audit export --format yaml --out log", false),
            ("rhumb audit checkpoint --fresh", true),
            ("rhumb audit erase-subject", false),
            ("rhumb load escrow concert --rate 100 --for 10s --seed 1 --receipts r.jsonl", true),
            ("rhumb load escrow concert --rate 0 --for 10s --receipts r.jsonl", false),
            ("rhumb demo --seats 100 -o json", true),
            ("rhumb mesh init --nodes us-east/n1=127.0.0.1:7001,eu-central/n1=127.0.0.1:7002 mesh", true),
            ("rhumb mesh init mesh", false),
            ("rhumb ca init --trust-domain Mesh.Example ca", false),
            ("rhumb cert issue --ca ca --node us-east/n1 --out out --valid 24h", true),
            ("rhumb cert issue --ca ca --node us-east/n1 --client us-east/app --out out", false),
            ("rhumb cert issue --ca ca --operator us-east/ops --out out", true),
            ("rhumb cert issue --ca ca --out out", false),
            ("rhumb cert issue --ca ca --node us-east/n1 --out out --valid 3000d", false),
            ("rhumb cert status", false),
            ("rhumb cert revoke --ca ca 4f:0a", true),
            ("rhumb cert revoke --mesh mesh 4f:0a", true),
            ("rhumb cert revoke --mesh mesh --ca ca 4f:0a", false),
            ("rhumb cert revoke 4f:0a", false),
            ("rhumb cert renew --mesh mesh us-east/n1 --valid 30d --deliver ./bring", true),
            ("rhumb cert renew --mesh mesh us-east/n1 --all", false),
            ("rhumb cert rollout --mesh mesh --canary us-east/n1 --bake 10m", true),
            ("rhumb cert rollout --mesh mesh --bake 10m", false),
            ("rhumb cert rollback mesh/nodes/us-east-n1/identity", true),
            ("rhumb ca rotate --mesh mesh --stage prepare", true),
            ("rhumb ca rotate --mesh mesh --stage commit", false),
            ("rhumb ca rotate --mesh mesh", false),
            ("rhumb ca sign-list --mesh mesh --valid 7d", true),
            ("rhumb ca sign-list --mesh mesh --valid 1h", false),
            ("rhumb doctor --config /etc/rhumb --region us-east", true),
            ("rhumb doctor --config /etc/rhumb", false),
            ("rhumb doctor --data . --config /etc/rhumb --region us-east", false),
            ("rhumb dead-letters list --node us-east/n1", true),
            ("rhumb dead-letters show 1790000000000-7", false),
            ("rhumb dead-letters retry 1790000000000-7 --node us-east/n1", true),
            ("rhumb dead-letters drop --node us-east/n1", false),
            ("rhumb completions bash", true),
            ("rhumb completions cmd", false),
            ("rhumb man", false),
            ("rhumb status --node us-east/n1 --check --within 500ms", true),
            ("rhumb status --node us-east", false),
            ("rhumb clock status --check --within 500ms", true),
            ("rhumb clock drill --node us-east/n1 --offset 450ms --behind --for 10s", true),
            ("rhumb clock drill", false),
            ("rhumb", false),
        ] {
            let parsed = Cli::given(line.split(' '));
            assert_eq!(parsed.is_ok(), right, "{line}");
            if let Err(error) = parsed {
                assert_eq!(error.exit_code(), 2, "{line}");
            }
        }
    }
}
