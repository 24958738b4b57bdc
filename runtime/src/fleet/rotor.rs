//! Makes the moves of a rotation, on the folders of a mesh.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rhumb_core::NodeId;
use rhumb_transport::issue::{Authority, Validity};
use rhumb_transport::{Certificate, Trust};
use serde::Serialize;

use super::rotation::{Folder, Move, Out, Stage, Stand, next_move};
use super::strays::{Stray, strays};
use super::{Event, Fleet, Member, Missed, note};
use crate::authority::{
    AUTHORITY_FILE, AuthorityFolder, Lock, NEXT_FILE, PREVIOUS_FILE, read_authority, revoked_in,
};
use crate::clock::now_millis;
use crate::identity::{CA_FILE, IDENTITY_FILE};
use crate::secrets::{self, Files, Secret, Secrets};

/// The rotation of one mesh's authority.
#[derive(Debug)]
pub struct Rotor<'a> {
    fleet: &'a Fleet,
    /// How long a new authority is valid; as long as the present one was, unless given.
    valid: Option<Duration>,
}

/// Somebody whom a rotation leaves as he is.
#[derive(Debug, Clone, Serialize)]
pub struct PassedOver {
    #[serde(skip)]
    member: Member,
    /// Who.
    pub holder: String,
    /// Why.
    pub why: Out,
}

impl PassedOver {
    /// Whether it is this one.
    #[must_use]
    pub fn is(&self, member: &Member) -> bool {
        self.member == *member
    }

    /// Whether it is this node.
    #[must_use]
    pub fn is_node(&self, node: &NodeId) -> bool {
        self.member.node.as_ref() == Some(node)
    }
}

impl<'a> Rotor<'a> {
    /// Of this mesh.
    #[must_use]
    pub fn of(fleet: &'a Fleet, valid: Option<Duration>) -> Self {
        Self { fleet, valid }
    }

    /// How everything stands.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn stand(&self) -> anyhow::Result<Stand> {
        let revoked = revoked_in(&self.fleet.authority())?;
        let name = |authority: Authority| authority.certificate().holder.to_string();
        let folder = |member: &Member| {
            let path = member.folder.join(IDENTITY_FILE);
            let chain = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let leaf =
                Certificate::all_of(&chain).with_context(|| path.display().to_string())?.swap_remove(0);
            let believes = believed(&member.folder.join(CA_FILE))?;
            let revoked = revoked.contains(&leaf.serial.to_string());
            Ok(Folder { holder: leaf.holder.to_string(), issuer: leaf.issuer, believes, revoked })
        };
        Ok(Stand {
            present: name(read_authority(&self.fleet.authority(), AUTHORITY_FILE)?),
            next: self.authority(NEXT_FILE)?.map(name),
            previous: self.authority(PREVIOUS_FILE)?.map(name),
            given_out: believed(&self.fleet.authority().join(CA_FILE))?,
            folders: self.fleet.members().iter().map(folder).collect::<anyhow::Result<_>>()?,
        })
    }

    /// Who has a certificate of the authority that is to go, and no folder in this mesh. Nobody where none is.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn strays(&self) -> anyhow::Result<Vec<Stray>> {
        let stand = self.stand()?;
        let goes = match (stand.previous, stand.next) {
            (Some(previous), _) => previous,
            (None, Some(_)) => stand.present,
            (None, None) => return Ok(Vec::new()),
        };
        let authority = AuthorityFolder::open(&self.fleet.authority())?;
        let members = stand.folders.into_iter().map(|folder| folder.holder).collect();
        let now = (now_millis() / 1000) as i64;
        Ok(strays(&authority.issued()?.all, &goes, &members, &authority.revoked()?, now))
    }

    /// The fingerprint of the certificate of the authority that is to take over, or has.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn coming(&self) -> anyhow::Result<Certificate> {
        let coming = match self.authority(NEXT_FILE)? {
            Some(next) => next,
            None => read_authority(&self.fleet.authority(), AUTHORITY_FILE)?,
        };
        Ok(coming.certificate().clone())
    }

    /// Makes all moves of a stage that are left; gives those that were, and who has not got it. What was changed
    /// is delivered at the end, also what an interrupted run had changed.
    ///
    /// # Errors
    /// The stage does not follow, or a move could not be made: run it again.
    pub fn run(&self, stage: Stage) -> anyhow::Result<(Vec<Move>, Vec<Missed>)> {
        let mut made = Vec::new();
        while let Some(step) = self.step(stage)? {
            made.push(step);
        }
        let out = self.passed_over()?;
        let taken = self.fleet.members().iter().filter(|member| !out.iter().any(|one| one.is(member)));
        Ok((made, self.fleet.deliver_all(taken)))
    }

    /// Whom a rotation leaves as he is: his certificate is believed no more.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn passed_over(&self) -> anyhow::Result<Vec<PassedOver>> {
        let stand = self.stand()?;
        let each = self.fleet.members().iter().zip(&stand.folders);
        let out = each.filter_map(|(member, folder)| {
            let why = folder.is_passed_over(&stand)?;
            Some(PassedOver { member: member.clone(), holder: folder.holder.clone(), why })
        });
        Ok(out.collect())
    }

    /// Makes the next move of a stage, if one is left.
    fn step(&self, stage: Stage) -> anyhow::Result<Option<Move>> {
        let lock = Arc::new(Lock::take(&self.fleet.authority())?);
        let stand = self.stand()?;
        let next = next_move(stage, &stand).map_err(anyhow::Error::msg)?;
        next.iter().try_for_each(|next| self.make(next, &stand, &lock))?;
        Ok(next)
    }

    /// Makes one move.
    fn make(&self, made: &Move, stand: &Stand, lock: &Arc<Lock>) -> anyhow::Result<()> {
        let at = self.fleet.authority();
        let file = |name: &str| at.join(name);
        let authority = || AuthorityFolder::open_under(Arc::clone(lock), &at);
        match made {
            Move::MakeNext => self.make_next()?,
            Move::GiveOut(authorities) => self.give_out(&authority()?, authorities)?,
            Move::Believe(member) => {
                authority()?.give_out(&self.fleet.members()[*member].folder)?;
            }
            Move::KeepPrevious => {
                secrets::replace(&file(PREVIOUS_FILE), &Files::of(&at).read(AUTHORITY_FILE)?)?;
            }
            Move::Promote => secrets::replace(&file(AUTHORITY_FILE), &Files::of(&at).read(NEXT_FILE)?)?,
            Move::ForgetNext => {
                remove(file(NEXT_FILE))?;
                self.note("authority.activated", &stand.present)?;
            }
            Move::Certify(member) => {
                self.fleet.renew(&authority()?, &self.fleet.members()[*member], None)?;
            }
            Move::ForgetPrevious => {
                remove(file(PREVIOUS_FILE))?;
                self.note("authority.retired", stand.previous.as_deref().unwrap_or_default())?;
            }
        }
        Ok(())
    }

    fn make_next(&self) -> anyhow::Result<()> {
        let at = self.fleet.authority();
        let present = read_authority(&at, AUTHORITY_FILE)?;
        let of_present = present.certificate();
        let life = Duration::from_secs((of_present.not_after - of_present.not_before).max(0) as u64);
        let validity = Validity::for_the_next(self.valid.unwrap_or(life));
        let next = Authority::create(present.trust_domain().clone(), validity)?;
        secrets::replace(&at.join(NEXT_FILE), &Secret::from(next.to_pem()))?;
        self.note("authority.prepared", &next.certificate().holder.to_string())
    }

    fn give_out(&self, present: &AuthorityFolder, names: &[String]) -> anyhow::Result<()> {
        let others = [self.authority(NEXT_FILE)?, self.authority(PREVIOUS_FILE)?];
        let known = || [present.authority()].into_iter().chain(others.iter().flatten());
        let named = |name: &String| {
            let mut known = known();
            let found = known.find(|authority| authority.certificate().holder.to_string() == *name);
            found.with_context(|| format!("there is no key of {name}"))
        };
        let authorities = names.iter().map(named).collect::<anyhow::Result<Vec<&Authority>>>()?;
        Ok(present.believe(&authorities)?)
    }

    fn authority(&self, name: &str) -> anyhow::Result<Option<Authority>> {
        if !self.fleet.authority().join(name).exists() {
            return Ok(None);
        }
        Ok(Some(read_authority(&self.fleet.authority(), name)?))
    }

    fn note(&self, event: &'static str, authority: &str) -> anyhow::Result<()> {
        let event = Event { event, holder: authority.to_owned(), serial: None, detail: None };
        Ok(note(&self.fleet.authority(), &event)?)
    }
}

/// The names of the authorities in a file.
fn believed(path: &PathBuf) -> anyhow::Result<Vec<String>> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let trust = Trust::from_pem(&text, None).with_context(|| path.display().to_string())?;
    Ok(trust.authorities().map(|authority| authority.holder.to_string()).collect())
}

fn remove(path: PathBuf) -> anyhow::Result<()> {
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use rhumb_core::{Principal, Role};
    use rhumb_transport::TrustDomain;
    use tempfile::TempDir;

    use super::super::Delivery;
    use super::*;
    use crate::authority::Place;
    use crate::founding::MeshFile;
    use crate::identity;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// The folders of a mesh of two nodes with a client.
    fn founded() -> TempDir {
        let folder = tempfile::tempdir().expect("a directory");
        let nodes: Vec<NodeId> = ["us/n1", "eu/n1"].map(|id| id.parse().expect("a node")).into();
        let domain = TrustDomain::new("mesh.example").expect("valid");
        let validity = Validity::for_the_next(90 * DAY);
        let ca = AuthorityFolder::found(&folder.path().join("ca"), domain, validity).expect("founded");
        let mut all: Vec<(Role, &NodeId, PathBuf)> = Vec::new();
        for id in &nodes {
            let at = folder.path().join("nodes").join(format!("{}-{}", id.region, id.name));
            all.push((Role::Node, id, at.join("identity")));
        }
        all.push((Role::Client, &nodes[0], folder.path().join("clients").join("us-app")));
        for (role, id, into) in all {
            let who = Principal { role, region: id.region.clone(), name: id.name.to_string() };
            ca.issue(&who, Validity::for_the_next(30 * DAY), &into, Place::New).expect("issued");
        }
        MeshFile { cluster: "0".repeat(32), nodes }.write(folder.path()).expect("written");
        folder
    }

    /// Everybody's certificate is one that everybody else would take.
    fn all_believe_each_other(fleet: &Fleet) {
        let all = fleet.members().iter().map(|member| identity::load(&member.folder).expect("usable"));
        let all: Vec<_> = all.collect();
        let now = Duration::from_millis(now_millis());
        for own in &all {
            for other in &all {
                own.believing(other.trust().clone()).verify(now).expect("believed");
            }
        }
    }

    #[test]
    fn a_rotation_goes_on_where_it_was_interrupted_and_all_believe_each_other_at_each_moment() {
        let folder = founded();
        let mut moves = 0;
        for stage in [Stage::Prepare, Stage::Activate, Stage::Retire] {
            loop {
                // As a program that was killed after each move and is started again.
                let fleet = Fleet::open(folder.path(), Delivery::default()).expect("a mesh");
                let made = Rotor::of(&fleet, None).step(stage).expect("made");
                all_believe_each_other(&fleet);
                if made.is_none() {
                    break;
                }
                moves += 1;
            }
        }
        assert_eq!(moves, 5 + 6 + 5);
        let fleet = Fleet::open(folder.path(), Delivery::default()).expect("a mesh");
        let stand = Rotor::of(&fleet, None).stand().expect("readable");
        assert_eq!((stand.next, stand.previous, stand.given_out.len()), (None, None, 1));
        assert!(stand.folders.iter().all(|folder| folder.issuer == stand.present));
        let authority = AuthorityFolder::open(&fleet.authority()).expect("opened");
        let issued = authority.issued().expect("listed").all;
        assert_eq!(issued.len(), 6, "three by each");
        authority.revoke(&issued[5].serial.parse().expect("a serial")).expect("the new one revokes its own");
    }

    #[test]
    fn the_old_authority_revokes_what_it_had_issued_until_it_is_retired() {
        let folder = founded();
        let fleet = Fleet::open(folder.path(), Delivery::default()).expect("a mesh");
        for stage in [Stage::Prepare, Stage::Activate] {
            Rotor::of(&fleet, None).run(stage).expect("run");
        }
        let authority = AuthorityFolder::open(&fleet.authority()).expect("opened");
        let old = authority.issued().expect("listed").all.swap_remove(0);
        authority.revoke(&old.serial.parse().expect("a serial")).expect("revoked");
        let text = fs::read(fleet.authority().join(crate::identity::CRL_FILE)).expect("there");
        let lists = rhumb_transport::identity::RevocationList::all_of(&text).expect("readable");
        let of_old = lists.iter().find(|list| list.issuer() == old.issuer).expect("its list");
        assert_eq!((of_old.number, of_old.revoked.len(), lists.len()), (2, 1, 2));
        let trust = Trust::from_pem(&fs::read(fleet.authority().join(CA_FILE)).expect("there"), Some(&text));
        trust.expect("each list is signed by its own authority");
    }

    #[test]
    fn a_rotation_issues_nothing_to_whoever_was_revoked_and_neither_does_the_next() {
        let folder = founded();
        let fleet = Fleet::open(folder.path(), Delivery::default()).expect("a mesh");
        let app = fleet.members().last().expect("a client").clone();
        let serial = app.certificate().expect("readable").serial;
        AuthorityFolder::open(&fleet.authority()).expect("opened").revoke(&serial).expect("revoked");
        for stage in [Stage::Prepare, Stage::Activate, Stage::Retire].repeat(2) {
            let rotor = Rotor::of(&fleet, None);
            rotor.run(stage).expect("it passes over it");
            let out = rotor.passed_over().expect("readable");
            let out: Vec<_> = out.iter().map(|out| (out.is(&app), out.why)).collect();
            assert_eq!(out, [(true, Out::Revoked)], "{stage:?}");
            assert_eq!(app.certificate().expect("readable").serial, serial, "{stage:?}");
        }
        assert_eq!(Rotor::of(&fleet, None).stand().expect("readable").previous, None, "it ends");
    }
}
