//! `rhumb kv`: keys and values of a keyspace.

mod answers;
mod batch;
pub(super) mod bytes;
mod parts;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};
use rhumb_actors::ranges::messages::{KvAnswer, KvCondition, KvOp, KvRead, KvRefusal, KvWritten, Needs};
use rhumb_core::{HybridTime, Region};

use self::answers::{ReadAnswer, WrittenAnswer};
use self::batch::Batch;
use self::bytes::{Coded, decode, is_standard, read_value, write_value};
use self::parts::all_parts;
use super::args::{duration, number, whole};
use super::connect::Connect;
use super::foreign::Foreign;
use super::output::{Done, Failure, Output};
use crate::client::kv::{Kv, KvError, put};
use crate::client::{MeshClient, now_ms};

/// Keys and values of a keyspace.
#[derive(Debug, Subcommand)]
pub enum KvCommand {
    /// Write a key.
    Put(Put),
    /// Read a key.
    Get(Get),
    /// Delete a key.
    Del(Del),
    /// Read keys in their order.
    Scan(Scan),
    /// Write several keys, 256 at most: all, or none.
    Batch(Batch),
}

/// Which keyspace, and who is asked.
#[derive(Debug, Args)]
struct Where {
    /// The keyspace.
    keyspace: String,
    /// Nodes of this region are asked first; those of the caller's own unless given.
    #[arg(long)]
    region: Option<Region>,
    #[command(flatten)]
    connect: Connect,
}

/// Which key, as it is given.
#[derive(Debug, Args)]
struct Keyed {
    #[command(flatten)]
    at: Where,
    /// The key.
    key: String,
    #[command(flatten)]
    coded: Coded,
}

/// Under which condition a key is written.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Only {
    /// Only if the key is not there.
    #[arg(long)]
    if_absent: bool,
    /// Only if the key was last written at this version, as an answer said it.
    #[arg(long, value_name = "VERSION", value_parser = version)]
    if_version: Option<u64>,
}

/// A version, as an answer said it.
fn version(text: &str) -> Result<u64, String> {
    let said = "expected one as an answer said it, such as 117677203963904000";
    whole(text).map_err(|_| format!("{text:?} is not a version; {said}"))
}

impl Only {
    fn condition(&self) -> Option<KvCondition> {
        match (self.if_absent, self.if_version) {
            (true, _) => Some(KvCondition::Absent),
            (false, version) => version.map(|bits| KvCondition::Version(HybridTime::from_bits(bits))),
        }
    }
}

/// What a reader needs.
#[derive(Debug, Args)]
struct Reads {
    /// `strong`: all that was acknowledged before; `bounded=TIME`: all that was acknowledged so long before; `eventual`:
    /// whatever is there.
    #[arg(long, value_name = "LEVEL", default_value = "strong", conflicts_with = "as_of")]
    consistency: Level,
    /// What was then: a version as an answer said it, how long ago, such as 30s, or a time of another clock, such as
    /// unix-s:1795388024 (`rhumb clock translate`).
    #[arg(long, value_name = "VERSION|TIME", allow_hyphen_values = true)]
    as_of: Option<AsOf>,
    /// The token of an earlier answer: what that one had seen is seen.
    #[arg(long)]
    token: Option<String>,
    /// Ask no farther replica.
    #[arg(long)]
    nearest_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Level(Needs);

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "strong" => Ok(Self(Needs::Strong)),
            None if text == "eventual" => Ok(Self(Needs::Eventual)),
            Some(("bounded", bound)) => match duration(bound)? {
                Duration::ZERO => Err("bounded=0s is never met; expected more, or strong".to_owned()),
                bound => Ok(Self(Needs::Bounded(bound))),
            },
            _ => Err(format!(
                "{text:?} is no level; expected strong, bounded=TIME (such as bounded=5s) or eventual"
            )),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AsOf {
    Version(HybridTime),
    Ago(Duration),
    Foreign(Foreign),
}

impl FromStr for AsOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains(':') {
            return text.parse().map(Self::Foreign);
        }
        match text.parse() {
            Ok(bits) => Ok(Self::Version(HybridTime::from_bits(bits))),
            Err(_) => duration(text).map(Self::Ago).map_err(|_| {
                format!(
                    "{text:?} is no time; expected a version, how long ago, such as 30s, or a time of another clock, \
                     such as unix-s:1795388024"
                )
            }),
        }
    }
}

impl Reads {
    fn needs(&self) -> Needs {
        match self.as_of {
            None => self.consistency.0,
            Some(AsOf::Version(at)) => Needs::AsOf(at),
            Some(AsOf::Foreign(time)) => Needs::AsOf(HybridTime::new(time.read_as_of_ms(), 0)),
            Some(AsOf::Ago(ago)) => {
                let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
                Needs::AsOf(HybridTime::new(now_ms().saturating_sub(ago), 0))
            }
        }
    }
}

/// Write a key.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb kv put profiles ann '{\"name\":\"Ann\"}' --if-absent\n  rhumb kv put pictures ann --file ann.jpg\n  rhumb kv put profiles --base64 AP8 aGVsbG8"
)]
pub struct Put {
    #[command(flatten)]
    of: Keyed,
    /// The value.
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    value: Option<String>,
    /// The value is what is in this file, byte for byte; `-`: standard input.
    #[arg(long, value_name = "FILE|-")]
    file: Option<PathBuf>,
    #[command(flatten)]
    only: Only,
    /// Whom the value is about. Of a personal class it must be said: the value is sealed under a key of the subject.
    #[arg(long)]
    subject: Option<String>,
    /// For how long it is there: until it is deleted unless given.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    expires: Option<Duration>,
    /// The version of the value's schema.
    #[arg(long, value_parser = whole::<u32>)]
    schema: Option<u32>,
}

/// Read a key.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb kv get profiles ann\n  rhumb kv get profiles ann --consistency bounded=5s -o json\n  rhumb kv get pictures ann --out ann.jpg\n\nThe answer says what it is: its level, its age, and where it was read. A key that is not there ends with exit code 5."
)]
pub struct Get {
    #[command(flatten)]
    of: Keyed,
    /// Write the value into this file, byte for byte; `-`: to standard output, and nothing else.
    #[arg(long, value_name = "FILE|-")]
    out: Option<PathBuf>,
    #[command(flatten)]
    reads: Reads,
}

/// Delete a key.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb kv del profiles ann")]
pub struct Del {
    #[command(flatten)]
    of: Keyed,
    #[command(flatten)]
    only: Only,
    /// Whom the deletion is about.
    #[arg(long)]
    subject: Option<String>,
}

/// Read keys in their order.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb kv scan profiles --from a --to b --limit 10")]
pub struct Scan {
    #[command(flatten)]
    at: Where,
    /// The first key.
    #[arg(long, default_value = "")]
    from: String,
    /// The first key that is not read any more; to the end unless given.
    #[arg(long)]
    to: Option<String>,
    /// So many rows at most.
    #[arg(long, default_value = "100", value_parser = number::<u64>(1..=1_000))]
    limit: u64,
    #[command(flatten)]
    coded: Coded,
    #[command(flatten)]
    reads: Reads,
}

impl Keyed {
    fn key(&self) -> Result<Vec<u8>, Failure> {
        self.coded.read("the key", &self.key)
    }
}

impl Where {
    async fn client(&self) -> Result<MeshClient, Failure> {
        self.connect.client().await
    }

    /// Writes, and tells.
    async fn write(&self, ops: Vec<KvOp>, output: &Output) -> Result<Done, Failure> {
        let client = self.client().await?;
        let count = ops.len();
        let written = async {
            let kv = Kv::open(&client, &self.keyspace, self.region.as_ref()).await?;
            kv.write(ops).await
        };
        let written: Result<KvWritten, KvError> = written.await;
        client.close().await;
        let written = written.map_err(|error| match error {
            KvError::Refused(refusal) => match refusal {
                KvRefusal::Condition { op, .. } if count > 1 => {
                    Failure::NotWritten { write: op + 1, of: count, refusal }
                }
                refusal => refusal.into(),
            },
            error => error.into(),
        });
        let answer = WrittenAnswer::from(written?);
        output.answer(&answer, answer.version);
        Ok(Done::Well)
    }

    async fn read(&self, reads: &Reads, asks: impl FnOnce(KvRead) -> KvRead) -> Result<KvAnswer, Failure> {
        let token = reads.token.as_ref().map(|token| decode(token)).transpose();
        let token = token.map_err(|_| {
            Failure::Usage("--token is no token: expected one as an answer said it, whole".to_owned())
        })?;
        let client = self.client().await?;
        let answered = async {
            let kv = Kv::open(&client, &self.keyspace, self.region.as_ref()).await?;
            let message = asks(KvRead { nearest_only: reads.nearest_only, ..kv.asks(reads.needs()) });
            all_parts(&kv, token.unwrap_or_default(), message).await
        };
        let answered: Result<KvAnswer, KvError> = answered.await;
        client.close().await;
        Ok(answered?)
    }
}

impl KvCommand {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Self::Put(said) => {
                let value = match (&said.value, &said.file) {
                    (_, Some(file)) => read_value(file)?,
                    (value, None) => said.of.coded.read("the value", value.as_deref().unwrap_or_default())?,
                };
                let op = KvOp {
                    condition: said.only.condition(),
                    schema: said.schema,
                    subject: said.subject,
                    lasts: said.expires,
                    ..put(&said.of.key()?, &value)
                };
                said.of.at.write(vec![op], output).await
            }
            Self::Del(said) => {
                let (condition, key) = (said.only.condition(), said.of.key()?);
                let op = KvOp { value: None, condition, subject: said.subject, ..put(&key, b"") };
                said.of.at.write(vec![op], output).await
            }
            Self::Batch(said) => {
                let ops = said.ops()?;
                said.at.write(ops, output).await
            }
            Self::Get(said) => said.run(output).await,
            Self::Scan(said) => said.run(output).await,
        }
    }
}

impl Get {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let raw = self.out.as_deref().is_some_and(is_standard);
        if raw && output.is_json() {
            let why = "--out - and -o json both write to standard output: give --out a file";
            return Err(Failure::Usage(why.to_owned()));
        }
        let (key, coded) = (self.of.key()?, self.of.coded);
        let answer = self.of.at.read(&self.reads, |asks| KvRead { from: key, to: None, ..asks }).await?;
        let value = answer.rows.first().map(|row| row.value.clone());
        let mut told = ReadAnswer::of(answer, coded);
        output.aside(told.worth());
        match (value, &self.out) {
            (None, _) if raw => output.note("the key is not there"),
            (None, _) => {
                output.answer(&told, "the key is not there");
                return Ok(Done::False);
            }
            (Some(value), Some(out)) => {
                write_value(out, &value)?;
                if !raw {
                    told.put_out(out);
                    output.answer(&told, out.display());
                }
                return Ok(Done::Well);
            }
            (Some(_), None) => {
                let (text, is_base64) = told.rows[0].value();
                if is_base64 && !coded.base64 {
                    output
                        .aside("the value is no text, and is shown in base64: `--out FILE` writes its bytes");
                }
                output.answer(&told, text);
                return Ok(Done::Well);
            }
        }
        Ok(Done::False)
    }
}

impl Scan {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let from = self.coded.read("--from", &self.from)?;
        let to = self.coded.read("--to", self.to.as_deref().unwrap_or_default())?;
        let limit = self.limit;
        let asks = |asks| KvRead { from, to: Some(to), limit, ..asks };
        let answer = ReadAnswer::of(self.at.read(&self.reads, asks).await?, self.coded);
        output.aside(answer.worth());
        if let Some(next) = answer.goes_on() {
            output.aside(format!("there is more: {next}"));
        }
        let rows: Vec<String> = answer.rows.iter().map(ToString::to_string).collect();
        output.answer(&answer, rows.join("\n"));
        Ok(Done::Well)
    }
}
