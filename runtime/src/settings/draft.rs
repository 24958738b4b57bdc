//! The typed settings of one node while they are put together; fresh, they are the built-in ones.
//!
//! * It decides: how a value becomes a field, by its type.
//! * It never does: look at more than one key at a time. What must hold between keys is in `rules`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rhumb_actors::audit::AuditSettings;
use rhumb_actors::delivery::DeliverySettings;
use rhumb_actors::escrow::EscrowSettings;
use rhumb_actors::ranges::RangeSettings;
use rhumb_actors::ranges::splitting::SplitSettings;
use rhumb_core::time::DEFAULT_MAX_OFFSET;
use rhumb_core::{ClusterId, NodeId};
use rhumb_storage::hot::HotSettings;
use rhumb_storage::rocks::RocksSettings;
use rhumb_topology::Founding;
use rhumb_topology::policy::{OperatorPublicKey, SignedPolicy};
use rhumb_transport::{TransportSettings, TrustDomain};

use super::kind::{OFF, Value};
use super::{IdentitySettings, LogSettings, NodeSettings, Settings, TimeSettings, TimeSource};
use crate::mesh::resilience::{ResilienceSettings, Switch};
use crate::supervisor::{CrashSettings, WatchSettings};
use crate::telemetry::sampling::Share;
use crate::telemetry::{Endpoint, Header, Protocol, TelemetrySettings};

/// What settings may say, before it is known that nothing is missing.
pub(super) struct Draft {
    pub(super) cluster: Option<ClusterId>,
    pub(super) trust_domain: Option<TrustDomain>,
    pub(super) founding: BTreeMap<NodeId, SocketAddr>,
    pub(super) max_offset: Duration,
    pub(super) listen: Option<SocketAddr>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) data: Option<PathBuf>,
    pub(super) identity: Option<PathBuf>,
    pub(super) dial: BTreeMap<NodeId, SocketAddr>,
    pub(super) policy_file: Option<PathBuf>,
    pub(super) policy_keys: Vec<OperatorPublicKey>,
    pub(super) policy: Option<SignedPolicy>,
    pub(super) log: LogSettings,
    pub(super) catch_up: Duration,
    pub(super) time: TimeSettings,
    pub(super) stop_within: Duration,
    pub(super) watch: WatchSettings,
    pub(super) crash: CrashSettings,
    pub(super) transport: TransportSettings,
    pub(super) escrow: EscrowSettings,
    pub(super) delivery: DeliverySettings,
    pub(super) hot: HotSettings,
    pub(super) rocks: RocksSettings,
    pub(super) support: Duration,
    pub(super) splits: SplitSettings,
    pub(super) replace_after: Option<Duration>,
    pub(super) compare_every: Option<Duration>,
    pub(super) feeding: Switch,
    pub(super) audit: AuditSettings,
    pub(super) audit_keys: Option<PathBuf>,
    pub(super) telemetry: TelemetrySettings,
    pub(super) identities: IdentitySettings,
    pub(super) resilience: ResilienceSettings,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            cluster: None,
            trust_domain: None,
            founding: BTreeMap::new(),
            max_offset: DEFAULT_MAX_OFFSET,
            listen: None,
            admin: None,
            data: None,
            identity: None,
            dial: BTreeMap::new(),
            policy_file: None,
            policy_keys: Vec::new(),
            policy: None,
            log: LogSettings::default(),
            catch_up: Duration::from_secs(60),
            time: TimeSettings::default(),
            stop_within: Duration::from_secs(10),
            watch: WatchSettings::default(),
            crash: CrashSettings::default(),
            transport: TransportSettings::default(),
            escrow: EscrowSettings::default(),
            delivery: DeliverySettings::default(),
            hot: HotSettings::default(),
            rocks: RocksSettings::default(),
            support: RangeSettings::default().support,
            splits: SplitSettings::default(),
            replace_after: Some(Duration::from_secs(300)),
            compare_every: Some(Duration::from_secs(3_600)),
            feeding: Switch::On,
            audit: AuditSettings::default(),
            audit_keys: None,
            telemetry: TelemetrySettings::default(),
            identities: IdentitySettings::default(),
            resilience: ResilienceSettings::default(),
        }
    }
}

impl Draft {
    /// The founding list.
    pub(super) fn founders(&self) -> Result<Founding, String> {
        Founding::new(self.founding.keys().cloned()).map_err(|error| error.to_string())
    }

    /// The settings of this node, if nothing is missing.
    pub(super) fn finish(self, me: NodeId) -> Option<Settings> {
        let founding = self.founders().ok()?;
        let mut peers = self.founding;
        peers.remove(&me);
        peers.extend(self.dial);
        let identity = self.identity?;
        let audit_keys = self.audit_keys.unwrap_or_else(|| identity.with_file_name("audit-keys"));
        Some(Settings {
            me,
            cluster: self.cluster?,
            trust_domain: self.trust_domain?,
            founding,
            peers,
            max_offset: self.max_offset,
            node: NodeSettings { listen: self.listen?, admin: self.admin?, data: self.data?, identity },
            policy: self.policy,
            log: self.log,
            catch_up: self.catch_up,
            time: self.time,
            stop_within: self.stop_within,
            watch: self.watch,
            crash: self.crash,
            transport: self.transport,
            escrow: EscrowSettings { max_offset: self.max_offset, ..self.escrow },
            delivery: self.delivery,
            hot: self.hot,
            rocks: self.rocks,
            support: self.support,
            splits: self.splits,
            replace_after: self.replace_after,
            compare_every: self.compare_every,
            feeding: self.feeding,
            audit: self.audit,
            audit_keys,
            telemetry: self.telemetry,
            identity: self.identities,
            resilience: self.resilience,
            entries: BTreeMap::new(),
        })
    }
}

/// A field that a value can be put into.
pub(super) trait Held {
    fn get(&self) -> Option<Value>;
    fn set(&mut self, value: Value) -> Result<(), String>;
}

/// What is written as a text and parses; the reason is empty where the key's form says it all.
pub(super) trait Text: Sized {
    fn parse(text: &str) -> Result<Self, String>;
    fn text(&self) -> String;
}

const OTHER_KIND: &str = "the value is of another kind than its field";

macro_rules! held_number {
    ($($number:ty),+) => {$(
        impl Held for $number {
            fn get(&self) -> Option<Value> {
                Some(Value::Number(*self as u64))
            }

            fn set(&mut self, value: Value) -> Result<(), String> {
                let Value::Number(number) = value else { return Err(OTHER_KIND.to_owned()) };
                *self = number.try_into().map_err(|_| "the field cannot hold it".to_owned())?;
                Ok(())
            }
        }
    )+};
}
held_number!(u16, u32, u64, usize);

/// A number, or none of it.
impl Held for Option<u64> {
    fn get(&self) -> Option<Value> {
        Some(self.map_or_else(|| Value::Text(OFF.to_owned()), Value::Number))
    }

    fn set(&mut self, value: Value) -> Result<(), String> {
        *self = match value {
            Value::Number(number) => Some(number),
            Value::Text(word) if word == OFF => None,
            _ => return Err(OTHER_KIND.to_owned()),
        };
        Ok(())
    }
}

/// A share of a whole, from 0 to 1.
impl Held for Option<Duration> {
    fn get(&self) -> Option<Value> {
        Some(self.map_or_else(|| Value::Text(OFF.to_owned()), Value::Span))
    }

    fn set(&mut self, value: Value) -> Result<(), String> {
        *self = match value {
            Value::Span(span) => Some(span),
            Value::Text(word) if word == OFF => None,
            _ => return Err(OTHER_KIND.to_owned()),
        };
        Ok(())
    }
}

impl Held for f64 {
    fn get(&self) -> Option<Value> {
        Some(Value::Number((self * 1e6).round() as u64))
    }

    fn set(&mut self, value: Value) -> Result<(), String> {
        let Value::Number(millionths) = value else { return Err(OTHER_KIND.to_owned()) };
        *self = millionths as f64 / 1e6;
        Ok(())
    }
}

impl Text for Switch {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(String::new()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::On => "on".to_owned(),
            Self::Off => "off".to_owned(),
        }
    }
}

impl Held for Share {
    fn get(&self) -> Option<Value> {
        Some(Value::Number(self.as_per_million().into()))
    }

    fn set(&mut self, value: Value) -> Result<(), String> {
        let Value::Number(millionths) = value else { return Err(OTHER_KIND.to_owned()) };
        let share = u32::try_from(millionths).ok().and_then(Self::per_million);
        *self = share.ok_or_else(|| "it is more than all".to_owned())?;
        Ok(())
    }
}

impl Text for Endpoint {
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Text for Protocol {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "grpc" => Ok(Self::Grpc),
            "http" => Ok(Self::Http),
            _ => Err(String::new()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Grpc => "grpc".to_owned(),
            Self::Http => "http".to_owned(),
        }
    }
}

impl Text for Header {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or_else(String::new)?;
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let printed = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if name.is_empty() || !name.bytes().all(token) || !value.bytes().all(printed) {
            return Err(String::new());
        }
        Ok(Self { name: name.to_ascii_lowercase(), value: value.to_owned() })
    }

    fn text(&self) -> String {
        format!("{}={}", self.name, self.value)
    }
}

impl Text for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn text(&self) -> String {
        self.clone()
    }
}

impl Text for TimeSource {
    fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').ok_or_else(String::new)?;
        let name = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        let sound =
            !host.is_empty() && host.chars().all(name) && port.parse::<u16>().is_ok_and(|port| port > 0);
        if sound { Ok(Self(text.to_owned())) } else { Err(String::new()) }
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl Held for Duration {
    fn get(&self) -> Option<Value> {
        Some(Value::Span(*self))
    }

    fn set(&mut self, value: Value) -> Result<(), String> {
        let Value::Span(span) = value else { return Err(OTHER_KIND.to_owned()) };
        *self = span;
        Ok(())
    }
}

impl<T: Text> Held for T {
    fn get(&self) -> Option<Value> {
        Some(Value::Text(self.text()))
    }

    fn set(&mut self, value: Value) -> Result<(), String> {
        let Value::Text(text) = value else { return Err(OTHER_KIND.to_owned()) };
        *self = T::parse(&text)?;
        Ok(())
    }
}

impl<T: Text> Held for Option<T> {
    fn get(&self) -> Option<Value> {
        self.as_ref().map(|held| Value::Text(held.text()))
    }

    fn set(&mut self, value: Value) -> Result<(), String> {
        let Value::Text(text) = value else { return Err(OTHER_KIND.to_owned()) };
        *self = Some(T::parse(&text)?);
        Ok(())
    }
}

impl<T: Text> Held for Vec<T> {
    fn get(&self) -> Option<Value> {
        Some(Value::Texts(self.iter().map(Text::text).collect()))
    }

    fn set(&mut self, value: Value) -> Result<(), String> {
        let Value::Texts(texts) = value else { return Err(OTHER_KIND.to_owned()) };
        *self = texts.iter().map(|text| T::parse(text)).collect::<Result<_, _>>()?;
        Ok(())
    }
}

/// A place in a table of addresses, named by the last part of the key.
pub(super) fn put_address(
    table: &mut BTreeMap<NodeId, SocketAddr>,
    node: &str,
    value: Value,
) -> Result<(), String> {
    let Value::Text(text) = value else { return Err(OTHER_KIND.to_owned()) };
    table.insert(node.parse().map_err(|_| String::new())?, SocketAddr::parse(&text)?);
    Ok(())
}

impl Text for ClusterId {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| String::new())
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Text for TrustDomain {
    fn parse(text: &str) -> Result<Self, String> {
        Self::new(text).map_err(|_| String::new())
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Text for SocketAddr {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| String::new())
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Text for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }

    fn text(&self) -> String {
        self.display().to_string()
    }
}

impl Text for OperatorPublicKey {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: rhumb_topology::policy::KeyError| error.to_string())
    }

    fn text(&self) -> String {
        self.to_string()
    }
}
