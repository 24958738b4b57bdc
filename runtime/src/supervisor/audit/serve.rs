//! What may be asked of a node's audit log over the mesh.

use std::time::Duration;

use rhumb_actors::audit::messages::{
    AuditRefusal, AuditView, CheckBundle, Checked, Cosign, EntryPage, EntryView, EraseSubject, Erased,
    KeyReplaced, Mark, NextStatement, Prove, ProveBatch, Proven, ProvenBatch, READ_AT_ONCE, READ_BYTES,
    ReadEntries, ReplaceKey, ShowAudit, ShowMark, State, Uncosigned,
};
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::audit::rows::{self, Unsound};
use rhumb_actors::audit::seal::sealed_under;
use rhumb_actors::audit::{AuditHandle, Looked, NotErased, read};
use rhumb_core::{DataClass, Fault, FaultKind, NodeId, Role};
use rhumb_storage::HotStore;
use rhumb_verify::Hash;
use rhumb_verify::checkpoint::{MAX_NONCE, nonce_line};
use rhumb_verify::note::Key;
use rhumb_verify::record::Entry;
use rhumb_verify::statement::Statement;
use tokio::task::spawn_blocking;

use super::check::{self, Findings};
use crate::mesh::registry::{Call, Registry, ServedTwice};
use crate::mesh::told::{self, begin, not_logged};
use crate::supervisor::policy::ServedPolicy;

/// What answers need besides the log.
#[derive(Clone)]
pub(in crate::supervisor) struct Served {
    pub(in crate::supervisor) store: HotStore,
    pub(in crate::supervisor) me: NodeId,
    pub(in crate::supervisor) key: Key,
    pub(in crate::supervisor) findings: Findings,
    pub(in crate::supervisor) policy: ServedPolicy,
    /// How old an entry is before it is pruned.
    pub(in crate::supervisor) retention: Duration,
}

type Answer<T> = Result<(Result<T, AuditRefusal>, DataClass), Fault>;

/// Serves the audit log's messages.
pub(in crate::supervisor) fn serve(
    registry: &mut Registry,
    log: &AuditHandle,
    served: &Served,
) -> Result<(), ServedTwice> {
    let desk = Desk { log: log.clone(), served: served.clone() };
    let log = log.clone();
    registry.serve(move |call: Call<Cosign>| {
        let log = log.clone();
        async move {
            let answer: Result<String, Uncosigned> =
                log.cosign(call.message).await.ok_or_else(|| silent("cosigns"))?;
            Ok((answer, DataClass::control()))
        }
    })?;
    macro_rules! serves {
        ($message:ty, $method:ident) => {{
            let desk = desk.clone();
            registry.serve(move |call: Call<$message>| {
                let desk = desk.clone();
                async move { desk.$method(call).await }
            })?;
        }};
    }
    serves!(ShowAudit, show);
    serves!(ShowMark, mark);
    serves!(ReadEntries, read);
    serves!(Prove, prove);
    serves!(ProveBatch, prove_batch);
    serves!(CheckBundle, check);
    serves!(ReplaceKey, replace_key);
    serves!(NextStatement, next_statement);
    serves!(State, state);
    serves!(EraseSubject, erase);
    Ok(())
}

fn silent(what: &str) -> Fault {
    Fault::unknown(FaultKind::Deadline(format!("waiting for the audit actor, which {what}")))
}

fn control<T>(answer: Result<T, AuditRefusal>) -> Answer<T> {
    Ok((answer, DataClass::control()))
}

/// What is said where the disk has not what was asked for.
fn unsound(retention: Duration) -> impl Fn(Unsound) -> AuditRefusal + Copy {
    move |why| match why {
        Unsound::Pruned { mark } => AuditRefusal::Pruned { mark, retention },
        why => AuditRefusal::Unsound(why.to_string()),
    }
}

/// Who answers.
#[derive(Clone)]
struct Desk {
    log: AuditHandle,
    served: Served,
}

impl Desk {
    async fn show(self, call: Call<ShowAudit>) -> Answer<AuditView> {
        let nonce = call.message.nonce;
        if nonce.len() > MAX_NONCE {
            let why = format!("a nonce has at most {MAX_NONCE} bytes, not {}", nonce.len());
            return control(Err(AuditRefusal::Invalid(why)));
        }
        let view = self.log.view().await.ok_or_else(|| silent("tells how it stands"))?;
        let asked = !nonce.is_empty() && !view.published_note.contains(&nonce_line(&nonce));
        if asked && !self.log.demand(nonce).await {
            return control(Err(AuditRefusal::Overloaded { retry_after: Duration::from_secs(1) }));
        }
        let (checked, faults) = self.served.findings.now();
        control(Ok(AuditView { checked, faults, ..view }))
    }

    async fn mark(self, _: Call<ShowMark>) -> Answer<Mark> {
        let Served { store, retention, .. } = self.served;
        let left = spawn_blocking(move || rows::left(&store)).await;
        let left = left.map_err(|panic| Fault::ran(FaultKind::Handler(panic.to_string())))?;
        control(left.map_err(unsound(retention)).map(|left| {
            let hashes: Vec<Hash> = left.levels().iter().flatten().copied().collect();
            Mark { mark: left.size(), edge: read::joined(&hashes), retention }
        }))
    }

    async fn read(self, call: Call<ReadEntries>) -> Answer<EntryPage> {
        let ReadEntries { from, limit, records, subject } = call.message;
        let principal = &call.from.principal;
        let of_here = principal.role == Role::Operator && principal.region == self.served.me.region;
        if (records || !subject.is_empty()) && !of_here {
            return control(Err(AuditRefusal::NotShown { region: self.served.me.region.clone() }));
        }
        let key = match subject.as_str() {
            "" => None,
            subject => Some(self.log.subject(subject).await),
        };
        // What is shown stays: who passes it on must not have what a power cut takes back.
        let durable = self.log.durable().await.ok_or_else(|| silent("tells how much is durable"))?;
        let store = self.served.store.clone();
        let stored = spawn_blocking(move || page(&store, from, limit, durable)).await;
        let (entries, next, mut stored) = match stored {
            Ok(Ok(page)) => page,
            Ok(Err(why)) => return control(Err(unsound(self.served.retention)(why))),
            Err(panic) => return Err(Fault::ran(FaultKind::Handler(panic.to_string()))),
        };
        if let Some(key) = key {
            stored.retain(|one| key.is_some() && sealed_under(&one.body).ok() == key);
        }
        let views = stored.iter().map(|one| EntryView {
            index: one.index,
            entry: one.entry.clone(),
            ..EntryView::default()
        });
        let mut page = EntryPage { entries, next, page: views.collect() };
        if records {
            let read = told::once("audit.read", &call.from).on(format!("entries {from} to {next}"));
            // Whoever reads what is said of people is told of before it is shown.
            let told = self.log.append(read, Some(&principal.to_string())).await;
            told.map_err(|why| not_logged(&why, rhumb_core::Delivery::NotSent))?;
            let bodies = stored.into_iter().map(|one| {
                let of = Entry::decode(&one.entry).map(|entry| entry.commitment);
                (of.unwrap_or(rhumb_verify::hash::empty()), one.body)
            });
            let looked = self.log.open(bodies.collect()).await.ok_or_else(|| silent("opens records"))?;
            for (view, looked) in page.page.iter_mut().zip(looked) {
                match looked {
                    Looked::Opened(salt, record) => {
                        (view.salt, view.record) = (salt.to_vec(), record.to_vec());
                    }
                    Looked::Shut => view.shut = true,
                    Looked::Changed(_) => view.changed = true,
                }
            }
        }
        control(Ok(page))
    }

    async fn prove(self, call: Call<Prove>) -> Answer<Proven> {
        let Prove { index, old, size } = call.message;
        let (store, unsound) = (self.served.store.clone(), unsound(self.served.retention));
        let proven = spawn_blocking(move || {
            let entries = read::size(&store).map_err(unsound)?;
            let beyond = index.is_some_and(|index| index >= size) || old.is_some_and(|old| old > size);
            if size > entries || beyond {
                return Err(AuditRefusal::NotThere { entries });
            }
            let mut proven = Proven::default();
            if let Some(index) = index {
                proven.inclusion = read::joined(&read::inclusion(&store, index, size).map_err(unsound)?);
                proven.entry = read::stored(&store, index).map_err(unsound)?.entry;
            }
            if let Some(old) = old {
                proven.consistency = read::joined(&read::consistency(&store, old, size).map_err(unsound)?);
            }
            Ok(proven)
        });
        control(proven.await.map_err(|panic| Fault::ran(FaultKind::Handler(panic.to_string())))?)
    }

    async fn prove_batch(self, call: Call<ProveBatch>) -> Answer<ProvenBatch> {
        let ProveBatch { indices, size } = call.message;
        if indices.is_empty() || indices.len() as u64 > READ_AT_ONCE || !indices.is_sorted_by(|a, b| a < b) {
            let why = format!(
                "expected the numbers of 1 to {READ_AT_ONCE} entries, each once and in order, not {} numbers",
                indices.len()
            );
            return control(Err(AuditRefusal::Invalid(why)));
        }
        let store = self.served.store.clone();
        let retention = self.served.retention;
        let proven = spawn_blocking(move || batch(&store, &indices, size, retention));
        control(proven.await.map_err(|panic| Fault::ran(FaultKind::Handler(panic.to_string())))?)
    }

    async fn check(self, call: Call<CheckBundle>) -> Answer<Checked> {
        control(
            check::bundle(&self.log, &self.served.store, &self.served.key, call.message.bundle)
                .await
                .map_err(unsound(self.served.retention)),
        )
    }

    /// What this node knows of what may be stated: its policy, and checkpoints that it has cosigned or signed.
    async fn known(&self, kind: &str, subject: &str) -> Option<(u64, Hash)> {
        match (kind, subject) {
            ("policy", "mesh") => self.served.policy.stated(),
            ("checkpoint", origin) => self.log.checkpointed(origin).await,
            _ => None,
        }
    }

    async fn next_statement(self, call: Call<NextStatement>) -> Answer<String> {
        let NextStatement { kind, subject, previous } = call.message;
        let Some(known) = self.known(&kind, &subject).await else {
            let why = format!(
                "this node knows of no {kind} {subject}; expected `policy mesh`, or `checkpoint` and the origin of a log \
                 that it has cosigned"
            );
            return control(Err(AuditRefusal::Invalid(why)));
        };
        let previous = <[u8; 32]>::try_from(previous).ok().map(Hash);
        let next = self.log.next_statement((kind, subject), known, previous).await;
        control(Ok(next.ok_or_else(|| silent("says what it would state"))?.to_string()))
    }

    async fn state(self, call: Call<State>) -> Answer<String> {
        let text = call.message.text;
        let known = match text.parse::<Statement>() {
            Ok(statement) => self.known(&statement.kind, &statement.subject).await,
            Err(_) => None,
        };
        let told = told::once("statement.sign", &call.from).with("statement", text.clone());
        let stated = self.log.state(text, known).await.ok_or_else(|| silent("signs statements"))?;
        let signature = match stated {
            Ok(signature) => signature,
            Err(why) => return control(Err(AuditRefusal::Invalid(format!("not signed: {why}")))),
        };
        let told = self.log.append(told, Some(&call.from.principal.to_string())).await;
        told.map_err(|why| not_logged(&why, rhumb_core::Delivery::Unknown))?;
        control(Ok(signature))
    }

    async fn replace_key(self, call: Call<ReplaceKey>) -> Answer<KeyReplaced> {
        let ReplaceKey { node, key } = call.message;
        let principal = &call.from.principal;
        if principal.role != Role::Operator || principal.region != self.served.me.region {
            let why =
                format!("only an operator of region {} says whom this node believes", self.served.me.region);
            return Err(Fault::not_sent(FaultKind::Unauthorized(why)));
        }
        let invalid = |why: String| control(Err(AuditRefusal::Invalid(why)));
        let Some((pinned, cosigned)) = self.log.peer(&node).await else {
            return invalid(format!(
                "no key of {node} is pinned here: expected a node of another region that was seen"
            ));
        };
        let key: Key = match key.parse() {
            Ok(key) => key,
            Err(why) => {
                return invalid(format!(
                    "{why}; expected the `key` of `rhumb audit checkpoint --node {node}`"
                ));
            }
        };
        if (&key.name, key.algorithm) != (&pinned.name, pinned.algorithm) {
            return invalid(format!("that is a key of {}; expected one of {}", key.name, pinned.name));
        }
        let record = Record::told("key.replace", "", Outcome::Begun)
            .on(format!("node {node}"))
            .with("before", pinned.to_string())
            .with("key", key.to_string())
            .with("cosigned", cosigned.unwrap_or_default());
        let begun = begin(&self.log, &call.from, record).await?;
        match self.log.replace(&node, key.public).await {
            Some(Ok(())) => {
                let entry = begun.ended(Outcome::Done, None).await?;
                tracing::warn!(peer = %node, by = %principal, "another key of its audit log is believed from now on");
                control(Ok(KeyReplaced { entry, before: pinned.to_string() }))
            }
            Some(Err(why)) => {
                begun.ended(Outcome::Refused, Some(why.to_string())).await?;
                invalid(why.to_string())
            }
            None => {
                begun.ended(Outcome::Failed, Some("nobody knows".to_owned())).await?;
                Err(silent("replaces a key"))
            }
        }
    }

    async fn erase(self, call: Call<EraseSubject>) -> Answer<Erased> {
        let subject = call.message.subject;
        if call.from.principal.role != Role::Operator {
            let why = "only an operator erases a subject".to_owned();
            return Err(Fault::not_sent(FaultKind::Unauthorized(why)));
        }
        if subject.is_empty() || subject == format!("node {}", self.served.me) {
            let why = "expected the name of a subject that is not the node itself: what is about nobody else is \
                       sealed under that, and needs no erasing";
            return control(Err(AuditRefusal::Invalid(why.to_owned())));
        }
        let key = self.log.subject(&subject).await;
        // The subject's name must not stand in a record that outlives it.
        let what = key.map_or_else(|| "no key".to_owned(), |key| format!("key {key}"));
        let begun =
            begin(&self.log, &call.from, Record::told("subject.erase", "", Outcome::Begun).on(what)).await?;
        match self.log.erase(&subject).await {
            Ok(key) => {
                let entry = begun.ended(Outcome::Done, None).await?;
                control(Ok(Erased { entry, key: key.map(|key| key.to_string()) }))
            }
            Err(why) => {
                begun.ended(Outcome::Failed, Some(why.to_string())).await?;
                match why {
                    NotErased::Overloaded => {
                        control(Err(AuditRefusal::Overloaded { retry_after: Duration::from_secs(1) }))
                    }
                    NotErased::Unfinished => Err(Fault::unknown(FaultKind::Storage(why.to_string()))),
                }
            }
        }
    }
}

fn batch(
    store: &HotStore,
    indices: &[u64],
    size: u64,
    retention: Duration,
) -> Result<ProvenBatch, AuditRefusal> {
    let unsound = unsound(retention);
    let entries = read::size(store).map_err(unsound)?;
    if size > entries || indices.last().is_some_and(|last| *last >= size) {
        return Err(AuditRefusal::NotThere { entries });
    }
    let (mut read, mut bytes) = (Vec::new(), 0);
    for index in indices {
        let entry = read::stored(store, *index).map_err(unsound)?.entry;
        bytes += entry.len();
        read.push(entry);
    }
    if bytes > READ_BYTES {
        let why =
            format!("these entries have {bytes} bytes; expected at most {READ_BYTES}: ask for fewer at once");
        return Err(AuditRefusal::Invalid(why));
    }
    let hashes = read::joined(&read::batch(store, indices, size).map_err(unsound)?);
    Ok(ProvenBatch { entries: read, hashes })
}

type Page = (u64, u64, Vec<read::Stored>);

/// Entries from there on, as many as are asked for and go into one answer; how many there are, and where the
/// next page begins.
fn page(store: &HotStore, from: u64, limit: u64, durable: u64) -> Result<Page, Unsound> {
    let entries = read::size(store)?.min(durable);
    let end = from.saturating_add(limit.min(READ_AT_ONCE)).min(entries);
    let (mut page, mut bytes, mut next) = (Vec::new(), 0, from);
    while next < end && bytes < READ_BYTES {
        let stored = read::stored(store, next)?;
        bytes += stored.entry.len() + stored.body.len();
        page.push(stored);
        next += 1;
    }
    Ok((entries, next, page))
}
