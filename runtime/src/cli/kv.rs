//! `rhumb kv`: keys and values of a keyspace.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use clap::{Args, Subcommand};
use rhumb_actors::ranges::messages::{KvAnswer, KvCondition, KvOp, KvRead, KvRow, KvWritten, Needs};
use rhumb_core::{HybridTime, Region};
use serde::Serialize;

use super::args::duration;
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

/// Under which condition a key is written.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Only {
    /// Only if the key is not there.
    #[arg(long)]
    if_absent: bool,
    /// Only if the key was last written at this version, as an answer said it.
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
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
    #[arg(long, value_name = "VERSION|TIME")]
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
#[command(after_help = "Example:\n  rhumb kv put profiles ann '{\"name\":\"Ann\"}' --if-absent")]
pub struct Put {
    #[command(flatten)]
    at: Where,
    /// The key.
    key: String,
    /// The value.
    value: String,
    #[command(flatten)]
    only: Only,
    /// Whom the value is about. Of a personal class it must be said: the value is sealed under a key of the subject.
    #[arg(long)]
    subject: Option<String>,
    /// For how long it is there: until it is deleted unless given.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    expires: Option<Duration>,
    /// The version of the value's schema.
    #[arg(long)]
    schema: Option<u32>,
}

/// Read a key.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb kv get profiles ann\n  rhumb kv get profiles ann --consistency bounded=5s -o json\n\nThe answer says what it is: its level, its age, and where it was read. A key that is not there ends with exit code 5."
)]
pub struct Get {
    #[command(flatten)]
    at: Where,
    /// The key.
    key: String,
    #[command(flatten)]
    reads: Reads,
}

/// Delete a key.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb kv del profiles ann")]
pub struct Del {
    #[command(flatten)]
    at: Where,
    /// The key.
    key: String,
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
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    limit: u64,
    #[command(flatten)]
    reads: Reads,
}

/// Write several keys, 256 at most: all, or none.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb kv batch profiles --put ann=1 --put bob=2 --del carl")]
#[group(required = true, multiple = true, args = ["puts", "dels"])]
pub struct Batch {
    #[command(flatten)]
    at: Where,
    /// A key and its value.
    #[arg(long = "put", value_name = "KEY=VALUE")]
    puts: Vec<KeyValue>,
    /// A key to delete.
    #[arg(long = "del", value_name = "KEY")]
    dels: Vec<String>,
    /// Only if no key that is put is there.
    #[arg(long)]
    if_absent: bool,
    /// Whom the values that are put are about. Of a personal class it must be said.
    #[arg(long)]
    subject: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyValue(String, String);

impl FromStr for KeyValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE, such as ann=1"))?;
        Ok(Self(pair.0.to_owned(), pair.1.to_owned()))
    }
}

#[derive(Debug, Serialize)]
struct WrittenAnswer {
    version: u64,
    region: Region,
    replica: u64,
    token: String,
}

/// A row. Bytes that are no text are told in base64.
#[derive(Debug, Serialize)]
struct RowAnswer {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    version: u64,
    schema: Option<u32>,
    subject: Option<String>,
    expires_ms: Option<u64>,
    /// Of a personal class: the id of the key that it is sealed under.
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed_under: Option<String>,
}

#[derive(Debug, Serialize)]
struct ReadAnswer {
    rows: Vec<RowAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_base64: Option<String>,
    level: &'static str,
    at: u64,
    age_ms: u64,
    region: Region,
    replica: u64,
    fallback: bool,
    token: String,
    /// Rows that are left out because their subjects were erased.
    #[serde(skip_serializing_if = "is_zero")]
    erased: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn texts(bytes: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(BASE64_URL_SAFE_NO_PAD.encode(error.into_bytes()))),
    }
}

impl From<KvRow> for RowAnswer {
    fn from(row: KvRow) -> Self {
        let ((key, key_base64), (value, value_base64)) = (texts(row.key), texts(row.value));
        let expires_ms = row.expires.map(HybridTime::millis);
        let version = row.version.to_bits();
        Self {
            key,
            key_base64,
            value,
            value_base64,
            version,
            schema: row.schema,
            subject: row.subject,
            expires_ms,
            sealed_under: row.sealed_under,
        }
    }
}

impl From<KvAnswer> for ReadAnswer {
    fn from(answer: KvAnswer) -> Self {
        let (next, next_base64) = answer.next.map(texts).unwrap_or_default();
        Self {
            rows: answer.rows.into_iter().map(RowAnswer::from).collect(),
            next,
            next_base64,
            level: answer.level.word(),
            at: answer.at.to_bits(),
            age_ms: u64::try_from(answer.age.as_millis()).unwrap_or(u64::MAX),
            region: answer.region,
            replica: answer.replica,
            fallback: answer.fallback,
            token: BASE64_URL_SAFE_NO_PAD.encode(answer.token),
            erased: answer.erased,
        }
    }
}

impl fmt::Display for RowAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text: &Option<String>, base64: &Option<String>| {
            text.clone().or_else(|| base64.clone()).unwrap_or_default()
        };
        write!(f, "{}\t{}", shown(&self.key, &self.key_base64), shown(&self.value, &self.value_base64))
    }
}

impl ReadAnswer {
    /// What it is, for people.
    fn worth(&self) -> String {
        let passed = if self.fallback { ", passed on by a nearer replica" } else { "" };
        let Self { level, age_ms, region, replica, erased, .. } = self;
        let out =
            if *erased > 0 { format!(", {erased} rows of erased subjects left out") } else { String::new() };
        format!("{level}, {age_ms} ms old, read in {region} by replica {replica}{passed}{out}")
    }
}

impl Where {
    async fn client(&self) -> Result<MeshClient, Failure> {
        self.connect.client().await
    }

    /// Writes, and tells.
    async fn write(&self, ops: Vec<KvOp>, output: &Output) -> Result<Done, Failure> {
        let client = self.client().await?;
        let written = async {
            let kv = Kv::open(&client, &self.keyspace, self.region.as_ref()).await?;
            kv.write(ops).await
        };
        let written: Result<KvWritten, KvError> = written.await;
        client.close().await;
        let KvWritten { version, region, replica, token } = written?;
        let token = BASE64_URL_SAFE_NO_PAD.encode(token);
        let answer = WrittenAnswer { version: version.to_bits(), region, replica, token };
        output.answer(&answer, answer.version);
        Ok(Done::Well)
    }

    async fn read(&self, reads: &Reads, asks: impl FnOnce(KvRead) -> KvRead) -> Result<ReadAnswer, Failure> {
        let token = reads.token.as_ref().map(|token| BASE64_URL_SAFE_NO_PAD.decode(token)).transpose();
        let token = token.map_err(|_| {
            Failure::Usage("--token is no token: expected one as an answer said it, whole".to_owned())
        })?;
        let client = self.client().await?;
        let answered = async {
            let kv = Kv::open(&client, &self.keyspace, self.region.as_ref()).await?;
            kv.goes_on(token.unwrap_or_default());
            let message = asks(KvRead { nearest_only: reads.nearest_only, ..kv.asks(reads.needs()) });
            let mut all = kv.read(message.clone()).await?;
            // A range answers for itself alone, and for so many bytes.
            while let Some(from) = all.next.clone()
                && (all.rows.len() as u64) < message.limit
            {
                let limit = message.limit - all.rows.len() as u64;
                let more = kv.read(KvRead { from, limit, ..message.clone() }).await?;
                all = KvAnswer {
                    rows: all.rows.into_iter().chain(more.rows).collect(),
                    level: all.level.min(more.level),
                    at: all.at.min(more.at),
                    age: all.age.max(more.age),
                    fallback: all.fallback || more.fallback,
                    erased: all.erased + more.erased,
                    ..more
                };
            }
            all.token = kv.token();
            Ok(all)
        };
        let answered: Result<KvAnswer, KvError> = answered.await;
        client.close().await;
        Ok(answered?.into())
    }
}

impl KvCommand {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Self::Put(said) => {
                let op = KvOp {
                    condition: said.only.condition(),
                    schema: said.schema,
                    subject: said.subject,
                    lasts: said.expires,
                    ..put(said.key.as_bytes(), said.value.as_bytes())
                };
                said.at.write(vec![op], output).await
            }
            Self::Del(said) => {
                let condition = said.only.condition();
                let op =
                    KvOp { value: None, condition, subject: said.subject, ..put(said.key.as_bytes(), b"") };
                said.at.write(vec![op], output).await
            }
            Self::Batch(said) => {
                let condition = said.if_absent.then_some(KvCondition::Absent);
                let puts = said.puts.iter().map(|KeyValue(key, value)| KvOp {
                    condition,
                    subject: said.subject.clone(),
                    ..put(key.as_bytes(), value.as_bytes())
                });
                let dels = said.dels.iter().map(|key| KvOp { value: None, ..put(key.as_bytes(), b"") });
                said.at.write(puts.chain(dels).collect(), output).await
            }
            Self::Get(said) => {
                let key = said.key.into_bytes();
                let answer = said.at.read(&said.reads, |asks| KvRead { from: key, to: None, ..asks }).await?;
                output.aside(answer.worth());
                let value = answer
                    .rows
                    .first()
                    .map(|row| row.value.clone().or_else(|| row.value_base64.clone()).unwrap_or_default());
                let found = value.is_some();
                output.answer(&answer, value.unwrap_or_else(|| "the key is not there".to_owned()));
                Ok(if found { Done::Well } else { Done::False })
            }
            Self::Scan(said) => {
                let Scan { from, to, limit, .. } = said;
                let (from, to) = (from.into_bytes(), Some(to.unwrap_or_default().into_bytes()));
                let answer = said.at.read(&said.reads, |asks| KvRead { from, to, limit, ..asks }).await?;
                output.aside(answer.worth());
                if let Some(next) = &answer.next {
                    output.aside(format!("there is more: --from {next}"));
                } else if answer.next_base64.is_some() {
                    output.aside(
                        "there is more, from a key that is no text (`next_base64` of -o json)".to_owned(),
                    );
                }
                let rows: Vec<String> = answer.rows.iter().map(ToString::to_string).collect();
                output.answer(&answer, rows.join("\n"));
                Ok(Done::Well)
            }
        }
    }
}
