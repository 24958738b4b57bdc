//! What gates read: a policy compiled once, then only asked.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use rhumb_core::{DataClass, Gate, GateRefusal, Passage, Region};

use super::{ClassRule, Exception, Policy, rfc3339};

/// What a region would do with data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Use {
    /// Keep it.
    Hold,
    /// See it.
    Read,
    /// Send it on.
    Carry,
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Hold => "hold",
            Self::Read => "read",
            Self::Carry => "carry",
        })
    }
}

/// By what a passage is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit<'a> {
    /// It is the mesh's own traffic.
    Control,
    /// The class's rule says so.
    Rule,
    /// Only this exception says so: such a passage is logged one by one.
    Exception(&'a Exception),
}

/// An immutable policy, or the absence of one, and the time as last observed.
#[derive(Debug)]
pub struct PolicySnapshot {
    policy: Option<Policy>,
    notes: Vec<String>,
    now_ms: AtomicU64,
}

impl PolicySnapshot {
    /// No policy: only the mesh's own traffic passes.
    #[must_use]
    pub fn none() -> Self {
        Self { policy: None, notes: Vec::new(), now_ms: AtomicU64::new(0) }
    }

    /// Compiles a policy for a mesh of these regions. What looks like a mistake but refuses too much
    /// rather than too little is a note, not an error: see [`PolicySnapshot::notes`].
    #[must_use]
    pub fn compile<'a>(policy: Policy, mesh: impl IntoIterator<Item = &'a Region>, now_ms: u64) -> Self {
        let mesh: BTreeSet<&Region> = mesh.into_iter().collect();
        let mut notes = Vec::new();
        for region in mesh.iter().filter(|region| !policy.names(region)) {
            notes.push(format!(
                "region {region} of this mesh stands in no jurisdiction: all labelled data is refused there"
            ));
        }
        for region in policy.regions().difference(&mesh) {
            notes.push(format!("the policy names region {region}, which has no node in this mesh"));
        }
        for exception in policy.exceptions.iter().filter(|exception| exception.has_ended(now_ms)) {
            let ended = rfc3339(exception.expires_ms);
            notes.push(format!("an exception for class {} ended at {ended}", exception.class));
        }
        Self { policy: Some(policy), notes, now_ms: AtomicU64::new(now_ms) }
    }

    /// Tells the wall clock's time, in milliseconds since the Unix epoch, for the end of exceptions.
    /// The runtime calls it every second, so an exception ends at most a second late. A clock that
    /// steps back is not followed: what has ended stays ended.
    pub fn observe(&self, now_ms: u64) {
        self.now_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    /// The policy's version; none without a policy.
    #[must_use]
    pub fn version(&self) -> Option<u64> {
        self.policy.as_ref().map(|policy| policy.version)
    }

    /// The policy itself; none without one.
    #[must_use]
    pub fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// What an operator should look at: each is safe, and probably not what was meant.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether reads of this class go into the audit log. An unknown class's do, if ever there is one.
    #[must_use]
    pub fn audits_reads(&self, class: &DataClass) -> bool {
        !class.is_control() && self.rule(class).map_or(true, |(_, rule)| rule.audit_reads)
    }

    /// Whether reads of any class go into the audit log.
    #[must_use]
    pub fn audits_any_reads(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.classes.values().any(|rule| rule.audit_reads))
    }

    /// Whether a region may put data of this class to this use. Exceptions open ways, not places: they
    /// do not count here.
    ///
    /// # Errors
    /// The rule that says no, or that there is none.
    pub fn permits(&self, region: &Region, usage: Use, class: &DataClass) -> Result<(), String> {
        if class.is_control() {
            return Ok(());
        }
        let (policy, rule) = self.rule(class)?;
        named(policy, region)?;
        if rule.regions(usage).contains(region) {
            return Ok(());
        }
        Err(format!("policy version {}: region {region} may not {usage} class {class}", policy.version))
    }

    /// Whether data under `class` may only go where data under `than` may go too, is kept nowhere else,
    /// and is audited as closely. A message may not carry what was learnt under a class on under
    /// another one that is less strict. Without a rule for either, only the same class is.
    #[must_use]
    pub fn no_less_strict(&self, class: &DataClass, than: &DataClass) -> bool {
        if class == than || than.is_control() {
            return true;
        }
        if class.is_control() {
            return false;
        }
        let (Ok((policy, rule)), Ok((_, base))) = (self.rule(class), self.rule(than)) else { return false };
        let within = |usage| rule.regions(usage).is_subset(base.regions(usage));
        let opened = |of: &DataClass| policy.exceptions.iter().filter(|e| e.class == *of).count();
        let read_within =
            rule.read.iter().all(|region| base.read.contains(region) || base.hold.contains(region));
        within(Use::Hold)
            && within(Use::Carry)
            && read_within
            && opened(class) == 0
            && (rule.audit_reads || !base.audit_reads)
    }

    /// Whether data may pass, and by what.
    ///
    /// # Errors
    /// [`GateRefusal`] with the rule that says no, or that there is none.
    pub fn decide(&self, passage: Passage<'_>) -> Result<Permit<'_>, GateRefusal> {
        self.weigh(passage.class, passage.from, passage.to).map_err(|reason| GateRefusal {
            class: passage.class.clone(),
            from: passage.from.clone(),
            to: passage.to.clone(),
            reason,
        })
    }

    /// The policy in words, for `rhumb policy show`.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.policy {
            None => "no policy is loaded: all labelled data is refused\n".into(),
            Some(policy) => describe(policy, &self.notes, self.now_ms.load(Ordering::Relaxed)),
        }
    }

    fn weigh(&self, class: &DataClass, from: &Region, to: &Region) -> Result<Permit<'_>, String> {
        if class.is_control() {
            return Ok(Permit::Control);
        }
        let (policy, rule) = self.rule(class)?;
        named(policy, from)?;
        named(policy, to)?;
        let Err(refusal) = rule.passage(from, to) else { return Ok(Permit::Rule) };
        let now_ms = self.now_ms.load(Ordering::Relaxed);
        let meant = |exception: &&Exception| {
            exception.class == *class && exception.from.contains(from) && exception.to.contains(to)
        };
        let mut ended = String::new();
        for exception in policy.exceptions.iter().filter(meant) {
            if !exception.has_ended(now_ms) {
                return Ok(Permit::Exception(exception));
            }
            ended = format!("; an exception ended at {}", rfc3339(exception.expires_ms));
        }
        Err(format!("policy version {}: {refusal}{ended}", policy.version))
    }

    fn rule(&self, class: &DataClass) -> Result<(&Policy, &ClassRule), String> {
        let Some(policy) = &self.policy else {
            return Err("no policy is loaded, and only class control passes without one".into());
        };
        let rule = policy.classes.get(class);
        rule.map(|rule| (policy, rule))
            .ok_or_else(|| format!("policy version {} has no class {class}", policy.version))
    }
}

impl Gate for PolicySnapshot {
    fn check(&self, passage: Passage<'_>) -> Result<(), GateRefusal> {
        self.decide(passage).map(|_permit| ())
    }
}

impl ClassRule {
    /// The regions that may put it to this use.
    #[must_use]
    pub fn regions(&self, usage: Use) -> &BTreeSet<Region> {
        match usage {
            Use::Hold => &self.hold,
            Use::Read => &self.read,
            Use::Carry => &self.carry,
        }
    }

    fn passage(&self, from: &Region, to: &Region) -> Result<(), String> {
        let may = |region: &Region, usage: Use| self.regions(usage).contains(region);
        if from == to {
            let any = [Use::Hold, Use::Read, Use::Carry].into_iter().any(|usage| may(from, usage));
            return any
                .then_some(())
                .ok_or_else(|| format!("region {from} may neither hold, read nor carry it"));
        }
        if !may(from, Use::Hold) && !may(from, Use::Carry) {
            return Err(format!("region {from} may neither hold nor carry it"));
        }
        if !may(to, Use::Hold) && !may(to, Use::Read) {
            return Err(format!("region {to} may neither hold nor read it"));
        }
        Ok(())
    }
}

fn named(policy: &Policy, region: &Region) -> Result<(), String> {
    if policy.names(region) {
        return Ok(());
    }
    Err(format!("policy version {} names region {region} in no jurisdiction", policy.version))
}

fn describe(policy: &Policy, notes: &[String], now_ms: u64) -> String {
    let list = |regions: &BTreeSet<Region>| match regions.len() {
        0 => "nowhere".to_owned(),
        _ => regions.iter().map(Region::as_str).collect::<Vec<_>>().join(", "),
    };
    let mut lines = vec![format!("policy version {}", policy.version)];
    for (name, regions) in &policy.jurisdictions {
        lines.push(format!("jurisdiction {name}: {}", list(regions)));
    }
    for (class, rule) in &policy.classes {
        lines.push(format!("class {class}{}", if rule.audit_reads { ", reads audited" } else { "" }));
        for usage in [Use::Hold, Use::Read, Use::Carry] {
            lines.push(format!("  {usage:<5} {}", list(rule.regions(usage))));
        }
    }
    for exception in &policy.exceptions {
        let word = if exception.has_ended(now_ms) { "ended" } else { "until" };
        let (class, reason, end) = (&exception.class, &exception.reason, rfc3339(exception.expires_ms));
        let (from, to) = (list(&exception.from), list(&exception.to));
        lines.push(format!("exception for {class} from {from} to {to}, {word} {end}: {reason}"));
    }
    lines.extend(notes.iter().map(|note| format!("note: {note}")));
    lines.push(String::new());
    lines.join("\n")
}
