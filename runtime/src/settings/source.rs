//! Where settings come from: the layers of a region, put together.
//!
//! * It decides: which layer wins for each key, what is missing, and what the settings of a node are.
//! * It never does: stop at the first fault. Faults of all layers are told at once.
//! * Invariant: [`Settings`] come out only if no layer has a fault and every rule holds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rhumb_core::{NodeId, NodeName, Region};
use rhumb_topology::policy::SignedPolicy;

use super::draft::Draft;
use super::fault::{Fault, Faults, Place};
use super::key::{Key, PREFIX};
use super::keys::{SECTIONS, Section, keys};
use super::kind::Value;
use super::layer::{self, Entry, Layer};
use super::rules::RULES;
use super::{Entries, Settings};

/// The file of all regions.
pub(super) const GLOBAL: &str = "global.toml";

/// The layers of one region: a folder of files, an environment's name, and the variables of a process.
#[derive(Clone)]
pub struct Source {
    dir: PathBuf,
    region: Region,
    env: Option<String>,
    variables: Vec<(String, Option<String>)>,
    sections: &'static [Section],
}

impl Source {
    /// The layers of a region in this folder, under this process's environment.
    #[must_use]
    pub fn new(dir: &Path, region: &Region, env: Option<&str>) -> Self {
        let ours = std::env::vars_os().filter_map(|(name, text)| {
            let name = name.to_str().filter(|name| name.starts_with(PREFIX))?.to_owned();
            Some((name, text.into_string().ok()))
        });
        Self {
            dir: dir.to_owned(),
            region: region.clone(),
            env: env.map(str::to_owned),
            variables: ours.collect(),
            sections: SECTIONS,
        }
    }

    /// The same layers under these variables instead.
    #[must_use]
    pub fn with_variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.variables = variables.into_iter().map(|(name, text)| (name, Some(text))).collect();
        self.variables.sort();
        self
    }

    /// The same layers of other keys.
    #[cfg(test)]
    pub(super) fn of_sections(self, sections: &'static [Section]) -> Self {
        Self { sections, ..self }
    }

    /// Reads all layers.
    #[must_use]
    pub fn read(&self) -> Read {
        let mut read = Read {
            source: self.clone(),
            entries: built_in(self.sections),
            faults: Vec::new(),
            unsure: Unsure::default(),
        };
        for layer in self.layers() {
            read.entries.extend(layer.entries);
            read.faults.extend(layer.faults);
            read.unsure.faulty.extend(layer.faulty);
            read.unsure.unread |= layer.unread;
        }
        read
    }

    /// The settings of a node of the region, which may be left out where there is one.
    ///
    /// # Errors
    /// Every fault of every layer.
    pub fn load(&self, node: Option<&NodeName>) -> Result<Settings, Faults> {
        let read = self.read();
        match read.choose(node) {
            Ok(name) => read.settings(&name),
            Err(fault) => Err(read.without_node(fault)),
        }
    }

    /// The region whose layers these are.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The name of the environment on top of the region, if there is one.
    #[must_use]
    pub fn env(&self) -> Option<&str> {
        self.env.as_deref()
    }

    /// The names of the files, the lowest layer first.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let env = self.env.as_ref().map(|env| format!("{}/{env}.toml", self.region));
        [GLOBAL.to_owned(), self.region_file()].into_iter().chain(env).collect()
    }

    fn region_file(&self) -> String {
        format!("{}.toml", self.region)
    }

    fn layers(&self) -> Vec<Layer> {
        let absent = format!("--config names the folder that holds {GLOBAL} and {}", self.region_file());
        let no_env = "--env names a file in the region's folder";
        let mut layers: Vec<Layer> = Vec::new();
        for (i, name) in self.files().iter().enumerate() {
            let absent = if i < 2 { &absent } else { no_env };
            layers.push(layer::file(self.sections, &self.dir, name, i + 1, absent));
        }
        layers.push(layer::variables(self.sections, &self.variables, layers.len() + 1));
        layers
    }

    pub(super) fn faults(&self, faults: Vec<Fault>) -> Faults {
        Faults { dir: self.dir.clone(), faults }
    }

    /// Puts a node's settings together from what is set. What is faulty or could not be read was told
    /// before; nothing is concluded from it.
    pub(super) fn assemble(
        &self,
        me: NodeId,
        entries: Entries,
        unsure: &Unsure,
    ) -> Result<Settings, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut draft = Draft::default();
        for (dotted, entry) in &entries {
            let last = dotted.rsplit('.').next().unwrap_or_default();
            if let Err(what) = (entry.key.field.set)(&mut draft, last, entry.value.clone()) {
                let place = entry.place.clone().unwrap_or_else(|| Place::whole(GLOBAL));
                faults.push(Fault::new(place, format!("{dotted}: {what}")));
            }
        }
        let set = Set { node: me.name.as_str(), entries: &entries, unsure };
        faults.extend(keys(self.sections).filter_map(|key| self.missing(key, &set)));
        let broken = RULES.iter().filter_map(|rule| {
            let place = set.place_of(&rule.keys())?;
            Some(Fault::new(place, rule.broken(&draft, &me)?))
        });
        faults.extend(broken);
        let sure = set.place_of(&["policy.file", "policy.keys"]).is_some();
        if let Some(place) = set.place_of(&["policy.file"]).filter(|_| sure) {
            match self.policy(&draft) {
                Ok(policy) => draft.policy = policy,
                Err(error) => faults.push(Fault::new(place, format!("policy.file: {error:#}"))),
            }
        }
        draft.data = draft.data.map(|data| self.dir.join(data));
        draft.identity = draft.identity.map(|identity| self.dir.join(identity));
        draft.audit_keys = draft.audit_keys.map(|keys| self.dir.join(keys));
        draft.identities.socket = self.dir.join(&draft.identities.socket);
        match draft.finish(me) {
            Some(settings) if faults.is_empty() => Ok(Settings { entries, ..settings }),
            _ => Err(faults),
        }
    }

    /// The fault that a needed key is not set, if it is not.
    fn missing(&self, key: &'static Key, set: &Set<'_>) -> Option<Fault> {
        let stem = key.name.strip_suffix(".*/*");
        let name = stem.unwrap_or(key.name).replace('*', set.node);
        if !key.needed || set.unsure.unread || set.is_faulty(&name) || set.names(&name).next().is_some() {
            return None;
        }
        let file = if key.is_of_each_node() { self.region_file() } else { GLOBAL.to_owned() };
        let each = if stem.is_some() { "for each node " } else { "" };
        let what = format!("{name} is missing: expected {each}{}", key.kind.expected());
        Some(Fault::new(Place::whole(file), what))
    }

    /// Reads the policy, if there is one.
    fn policy(&self, draft: &Draft) -> anyhow::Result<Option<SignedPolicy>> {
        let Some(file) = &draft.policy_file else { return Ok(None) };
        let file = self.dir.join(file);
        let mut signature = file.clone().into_os_string();
        signature.push(".sig");
        let read =
            |file: &Path| std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        let (bytes, signature) = (read(&file)?, read(Path::new(&signature))?);
        let keys = draft.policy_keys.iter().copied().collect();
        let signed = SignedPolicy::verify(&bytes, &String::from_utf8_lossy(&signature), &keys)
            .with_context(|| file.display().to_string())?;
        Ok(Some(signed))
    }
}

/// What is built in.
fn built_in(sections: &'static [Section]) -> Entries {
    let fresh = Draft::default();
    let each = keys(sections).filter(|key| !key.is_of_each_node()).filter_map(|key| {
        let value = (key.field.get)(&fresh)?;
        Some((key.name.to_owned(), Entry { key, value, place: None, rank: 0 }))
    });
    each.collect()
}

/// What was written and cannot be used.
#[derive(Default)]
pub(super) struct Unsure {
    /// Dotted names that are set to a faulty value.
    faulty: BTreeSet<String>,
    /// A part of a layer could not be read: anything may stand there.
    unread: bool,
}

/// What is set for one node.
struct Set<'a> {
    node: &'a str,
    entries: &'a Entries,
    unsure: &'a Unsure,
}

impl Set<'_> {
    /// The entries of a name, or below it.
    fn names<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Entry> {
        self.entries.iter().filter(move |(dotted, _)| is_below(dotted, name)).map(|(_, entry)| entry)
    }

    fn is_faulty(&self, name: &str) -> bool {
        self.unsure.faulty.iter().any(|faulty| is_below(faulty, name))
    }

    /// Where these keys were set last. None if none was set at all, or one cannot be known.
    fn place_of(&self, keys: &[&str]) -> Option<Place> {
        let names: Vec<String> = keys.iter().map(|key| key.replace('*', self.node)).collect();
        if self.unsure.unread || names.iter().any(|name| self.is_faulty(name)) {
            return None;
        }
        let set = names.iter().flat_map(|name| self.names(name)).filter(|entry| entry.place.is_some());
        set.max_by_key(|entry| (entry.rank, entry.place.clone())).and_then(|entry| entry.place.clone())
    }
}

/// Whether a dotted name is this one, or one below it.
fn is_below(dotted: &str, name: &str) -> bool {
    dotted.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// All layers of a region as they were read, with all that is wrong within each.
pub struct Read {
    source: Source,
    entries: Entries,
    faults: Vec<Fault>,
    unsure: Unsure,
}

impl Read {
    /// What is set, by dotted name, each with its place; of all nodes of the region.
    #[must_use]
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// The policy file, as it is written.
    pub(super) fn policy_file(&self) -> Option<String> {
        match &self.entries.get("policy.file")?.value {
            Value::Text(file) => Some(file.clone()),
            _ => None,
        }
    }

    /// The nodes that the region lists.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<NodeName> {
        let set = self.entries.keys().chain(&self.unsure.faulty);
        let names = set.filter_map(|dotted| dotted.strip_prefix("nodes.")?.split('.').next());
        names.filter_map(|name| NodeName::new(name).ok()).collect()
    }

    /// The settings of a node.
    ///
    /// # Errors
    /// Every fault of every layer, and of what the layers come to.
    pub fn settings(&self, node: &NodeName) -> Result<Settings, Faults> {
        let me = NodeId { region: self.source.region.clone(), name: node.clone() };
        match self.source.assemble(me, self.of_node(node), &self.unsure) {
            Ok(settings) if self.faults.is_empty() => Ok(settings),
            Ok(_) => Err(self.source.faults(self.faults.clone())),
            Err(more) => Err(self.source.faults(self.faults.iter().cloned().chain(more).collect())),
        }
    }

    /// Everything that is wrong, with every node of the region.
    ///
    /// # Errors
    /// As [`Read::settings`], for all of them.
    pub fn check(&self) -> Result<Vec<Settings>, Faults> {
        let nodes = self.nodes();
        if nodes.is_empty() {
            return Err(match self.choose(None) {
                Ok(_) => self.source.faults(self.faults.clone()),
                Err(fault) => self.without_node(fault),
            });
        }
        let mut faults = self.source.faults(self.faults.clone());
        let mut all = Vec::new();
        for node in nodes {
            match self.settings(&node) {
                Ok(settings) => all.push(settings),
                Err(more) => faults.merge(more),
            }
        }
        if faults.faults.is_empty() { Ok(all) } else { Err(faults) }
    }

    /// What is set for one node: what is set for all, and what is set for it.
    pub(super) fn of_node(&self, node: &NodeName) -> Entries {
        let mine = format!("nodes.{node}.");
        let its = |dotted: &str| !dotted.starts_with("nodes.") || dotted.starts_with(&mine);
        let each = self.entries.iter().filter(|(dotted, _)| its(dotted));
        each.map(|(dotted, entry)| (dotted.clone(), entry.clone())).collect()
    }

    /// Everything that is wrong where no node is known to look at.
    fn without_node(&self, why: Fault) -> Faults {
        let set = Set { node: "", entries: &self.entries, unsure: &self.unsure };
        let of_all = keys(self.source.sections).filter(|key| !key.is_of_each_node());
        let missing = of_all.filter_map(|key| self.source.missing(key, &set));
        let why = (!self.unsure.unread).then_some(why);
        self.source.faults(self.faults.iter().cloned().chain(missing).chain(why).collect())
    }

    /// The node that is meant.
    pub(super) fn choose(&self, node: Option<&NodeName>) -> Result<NodeName, Fault> {
        let nodes = self.nodes();
        let region = &self.source.region;
        let fault = |what: String| Fault::new(Place::whole(self.source.region_file()), what);
        let known = || nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
        match (node, nodes.len()) {
            (Some(name), _) if nodes.contains(name) => Ok(name.clone()),
            (_, 0) => {
                Err(fault(format!("region {region} has no node: write its settings under [nodes.NAME]")))
            }
            (Some(name), _) => Err(fault(format!("region {region} has no node {name}: it has {}", known()))),
            (None, 1) => nodes.iter().next().cloned().ok_or_else(|| fault(String::new())),
            (None, _) => {
                Err(fault(format!("region {region} has several nodes: say --node, one of {}", known())))
            }
        }
    }
}
