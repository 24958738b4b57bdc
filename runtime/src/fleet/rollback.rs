//! One generation back.
//!
//! * It decides: whether the generation before may be put in force. It is checked as peers would check it, by
//!   what is revoked now.
//! * It never does: forget a revocation. Of the lists of both generations the later ones count.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use pem::Pem;
use rhumb_transport::identity::RevocationList;
use rhumb_transport::{Certificate, Credentials, Trust};

use crate::clock::now_millis;
use crate::generations::Generations;
use crate::identity::{CA_FILE, CRL_FILE, IDENTITY_FILE};
use crate::secrets;

/// A folder that went back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// The generation that was in force.
    pub from: u64,
    /// The one that is.
    pub to: u64,
    /// Its certificate.
    pub certificate: Certificate,
}

/// Puts the generation before in force, and leaves a note why.
///
/// # Errors
/// There is none, or peers would refuse it; nothing has changed.
pub fn roll_back(folder: &Path, why: &str) -> anyhow::Result<RolledBack> {
    let (generations, from) = present(folder)?;
    let to = generations.before()?.with_context(|| none(folder))?;
    go_back(&generations, from, to, why)
}

/// Puts the generation in force whose certificate has this serial number, and leaves a note why.
///
/// # Errors
/// It is not kept, or peers would refuse it; nothing has changed.
pub fn roll_back_to(folder: &Path, serial: &str, why: &str) -> anyhow::Result<RolledBack> {
    let (generations, from) = present(folder)?;
    let has_it = |number: &u64| {
        let file = generations.path(*number).join(IDENTITY_FILE);
        let chain = fs::read(file).ok().and_then(|bytes| Certificate::all_of(&bytes).ok());
        chain.is_some_and(|chain| chain[0].serial.to_string() == serial)
    };
    let to = generations.all()?.into_iter().rfind(|number| *number != from && has_it(number));
    let to =
        to.with_context(|| format!("{} has kept no certificate {serial} to go back to", folder.display()))?;
    go_back(&generations, from, to, why)
}

/// The generations of a folder, and which one is in force.
fn present(folder: &Path) -> anyhow::Result<(Generations, u64)> {
    let generations = Generations::of(folder);
    let from = generations.current().with_context(|| none(folder))?;
    Ok((generations, from))
}

fn none(folder: &Path) -> String {
    format!("{} has no generation to go back to: only a renewal makes one", folder.display())
}

fn go_back(generations: &Generations, from: u64, to: u64, why: &str) -> anyhow::Result<RolledBack> {
    let (left, back) = (generations.path(from), generations.path(to));
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let lists = latest(&[lists_of(&left)?, lists_of(&back)?]);
    let (identity, authorities) = (read(&back.join(IDENTITY_FILE))?, read(&back.join(CA_FILE))?);
    let certificate = would_do(&identity, &authorities, &lists)
        .with_context(|| format!("{} would not do, {} stays", back.display(), left.display()))?;
    if !lists.is_empty() {
        secrets::publish(&back.join(CRL_FILE), lists.as_bytes())?;
    }
    generations.note(from, why)?;
    generations.put_in_force(to)?;
    Ok(RolledBack { from, to, certificate })
}

fn would_do(identity: &[u8], authorities: &[u8], lists: &str) -> anyhow::Result<Certificate> {
    let trust = Trust::from_pem(authorities, Some(lists.as_bytes()))?;
    let credentials = Credentials::new(identity, trust)?;
    credentials.verify(Duration::from_millis(now_millis()))?;
    Ok(credentials.certificate().clone())
}

fn lists_of(generation: &Path) -> anyhow::Result<Vec<RevocationList>> {
    let path = generation.join(CRL_FILE);
    match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        read => {
            let bytes = read.with_context(|| format!("cannot read {}", path.display()))?;
            RevocationList::all_of(&bytes).with_context(|| path.display().to_string())
        }
    }
}

/// Of each authority the list with the highest number, as PEM.
fn latest(all: &[Vec<RevocationList>]) -> String {
    let mut latest: Vec<&RevocationList> = Vec::new();
    for list in all.iter().flatten() {
        match latest.iter_mut().find(|known| known.is_of_the_same(list)) {
            Some(known) if known.number >= list.number => {}
            Some(known) => *known = list,
            None => latest.push(list),
        }
    }
    latest.iter().map(|list| pem::encode(&Pem::new("X509 CRL", list.der()))).collect()
}

#[cfg(test)]
mod tests {
    use rhumb_core::{Principal, Region, Role};
    use rhumb_transport::TrustDomain;
    use rhumb_transport::issue::Validity;

    use super::*;
    use crate::authority::{AuthorityFolder, Place};
    use crate::identity;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_folder_goes_back_to_a_certificate_that_still_does_and_forgets_no_revocation() {
        let folder = tempfile::tempdir().expect("a directory");
        let (ca, own) = (folder.path().join("ca"), folder.path().join("n1"));
        let domain = TrustDomain::new("mesh.example").expect("valid");
        let authority =
            AuthorityFolder::found(&ca, domain, Validity::for_the_next(9 * DAY)).expect("founded");
        let who =
            Principal { role: Role::Node, region: Region::new("us").expect("valid"), name: "n1".into() };
        let issue = |place| authority.issue(&who, Validity::for_the_next(DAY), &own, place).expect("issued");
        let first = issue(Place::New);
        let said = roll_back(&own, "no reason").expect_err("there is none").to_string();
        assert!(said.contains("has no generation to go back to"), "{said}");
        issue(Place::Renewed);
        authority.revoke(&"1".parse().expect("a serial")).expect_err("never issued");
        let third = issue(Place::Renewed);
        authority.revoke(&third.serial).expect("revoked");
        authority.give_out(&own).expect("given out");

        let back = roll_back(&own, "the canary died").expect("rolled back");
        assert_eq!((back.from, back.to), (3, 2));
        let (now, loaded) = (Duration::from_millis(now_millis()), identity::load(&own).expect("usable"));
        assert_eq!(loaded.certificate(), &back.certificate);
        loaded.verify(now).expect("peers take it");
        let numbers: Vec<u128> = loaded.trust().lists().iter().map(|list| list.number).collect();
        assert_eq!(numbers, [2], "the list that revoked the third");
        let why = fs::read_to_string(own.join("generations/3/rolled-back.txt")).expect("a note");
        assert_eq!(why, "the canary died\n");

        authority.revoke(&first.serial).expect("revoked");
        authority.give_out(&own).expect("given out");
        let refused = format!("{:#}", roll_back(&own, "again").expect_err("the first is revoked"));
        assert!(
            refused.contains("generations/1 would not do") && refused.contains("it was revoked"),
            "{refused}"
        );
        assert_eq!(identity::load(&own).expect("usable").certificate(), &back.certificate, "nothing changed");
    }

    #[test]
    fn a_folder_goes_back_to_the_certificate_that_is_named_and_over_others() {
        let folder = tempfile::tempdir().expect("a directory");
        let own = folder.path().join("n1");
        let domain = TrustDomain::new("mesh.example").expect("valid");
        let validity = Validity::for_the_next(9 * DAY);
        let authority = AuthorityFolder::found(&folder.path().join("ca"), domain, validity).expect("founded");
        let who =
            Principal { role: Role::Node, region: Region::new("us").expect("valid"), name: "n1".into() };
        let issue = |place| authority.issue(&who, Validity::for_the_next(DAY), &own, place).expect("issued");
        let proven = issue(Place::New);
        // Of a rollout that was killed: it is not known to be good.
        issue(Place::Renewed);
        let bad = issue(Place::Renewed);
        let back = roll_back_to(&own, &proven.serial.to_string(), "the canary died").expect("rolled back");
        assert_eq!((back.from, back.to), (3, 1));
        assert_eq!(identity::load(&own).expect("usable").certificate(), &proven);
        let unknown = roll_back_to(&own, "1234", "again").expect_err("it is not kept").to_string();
        assert!(unknown.contains("has kept no certificate 1234"), "{unknown}");
        let forward = roll_back_to(&own, &bad.serial.to_string(), "by name").expect("it is kept");
        assert_eq!(forward.to, 3, "only what is named counts");
    }
}
