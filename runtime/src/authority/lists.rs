//! The lists of what an authority has revoked, in its folder.
//!
//! * It decides: which authority's list a certificate belongs to, and that the lists of others stay.
//! * It never does: forget what was revoked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use pem::Pem;
use rhumb_transport::identity::{RevocationList, Serial};
use rhumb_transport::issue::Authority;

use super::{AuthorityFault, AuthorityFolder, Issued, RETIRED_FILE, Revoked, file};
use crate::clock::now_millis;
use crate::identity::{CA_FILE, CRL_FILE};
use crate::secrets;

impl AuthorityFolder {
    /// Revokes a certificate that was issued here.
    ///
    /// # Errors
    /// [`AuthorityFault`].
    pub fn revoke(&self, serial: &Serial) -> Result<Revoked, AuthorityFault> {
        let certificate = self.issued()?.find(serial)?;
        let by = self.issuer_of(&certificate);
        let (number, mut revoked) = self.revoked_by(by)?;
        if revoked.contains_key(serial) {
            return Ok(Revoked { certificate, again: true, number, revoked: revoked.len() });
        }
        revoked.insert(serial.clone(), (now_millis() / 1000) as i64);
        self.sign_list(by, number + 1, &revoked, Duration::MAX)?;
        Ok(Revoked { certificate, again: false, number: number + 1, revoked: revoked.len() })
    }

    /// Signs the lists of revocations anew, valid for so long at most. Gives the number of the authority's own.
    ///
    /// # Errors
    /// [`AuthorityFault`].
    pub fn renew_lists(&self, valid: Duration) -> Result<u128, AuthorityFault> {
        let mut last = 0;
        for by in self.previous.iter().chain([&self.authority]) {
            let (number, revoked) = self.revoked_by(by)?;
            last = number + 1;
            self.sign_list(by, last, &revoked, valid)?;
        }
        Ok(last)
    }

    /// Who issued this. Before the authority was first replaced, nobody wrote that down.
    fn issuer_of(&self, certificate: &Issued) -> &Authority {
        let of = |by: &&Authority| {
            certificate.issuer.is_empty() || by.certificate().holder.to_string() == certificate.issuer
        };
        self.previous.iter().find(of).unwrap_or(&self.authority)
    }

    /// The number of an authority's list, and what stands in it.
    fn revoked_by(&self, by: &Authority) -> Result<(u128, BTreeMap<Serial, i64>), AuthorityFault> {
        let mut revoked = BTreeMap::new();
        let mut number = 0;
        for list in self.lists()?.iter().filter(|list| by.has_signed(list)) {
            number = number.max(list.number);
            revoked.extend(list.revoked.clone());
        }
        Ok((number, revoked))
    }

    /// Puts an authority's list in place of its last one. The lists of others stay.
    fn sign_list(
        &self,
        by: &Authority,
        number: u128,
        revoked: &BTreeMap<Serial, i64>,
        valid: Duration,
    ) -> Result<(), AuthorityFault> {
        let others = self.lists()?.into_iter().filter(|list| !by.has_signed(list));
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now_millis());
        let mut text = by.list(number, revoked, now, valid)?;
        text.extend(others.map(|list| pem::encode(&Pem::new("X509 CRL", list.der()))));
        Ok(secrets::publish(&self.folder.join(CRL_FILE), text.as_bytes())?)
    }

    /// Has these authorities believed by whoever is given what this folder gives out, each with its list.
    ///
    /// # Errors
    /// [`AuthorityFault`].
    pub(crate) fn believe(&self, all: &[&Authority]) -> Result<(), AuthorityFault> {
        let known = self.lists()?;
        let (mut authorities, mut lists) = (String::new(), String::new());
        for authority in all {
            authorities.push_str(authority.certificate_pem());
            match known.iter().find(|list| authority.has_signed(list)) {
                Some(list) => lists.push_str(&pem::encode(&Pem::new("X509 CRL", list.der()))),
                None => {
                    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now_millis());
                    lists.push_str(&authority.revocations(1, &BTreeMap::new(), now)?);
                }
            }
        }
        self.remember(known.iter().filter(|list| !all.iter().any(|authority| authority.has_signed(list))))?;
        secrets::publish(&self.folder.join(CRL_FILE), lists.as_bytes())?;
        Ok(secrets::publish(&self.folder.join(CA_FILE), authorities.as_bytes())?)
    }

    /// Keeps the lists of authorities that are given out no more: whom these have revoked stays known, so that nobody
    /// else certifies him by mistake.
    fn remember<'a>(&self, gone: impl Iterator<Item = &'a RevocationList>) -> Result<(), AuthorityFault> {
        let before = lists_in(&self.folder, RETIRED_FILE)?;
        let is_news = |list: &&RevocationList| {
            !list.revoked.is_empty() && before.iter().all(|known| known.der() != list.der())
        };
        let news: Vec<&RevocationList> = gone.filter(is_news).collect();
        if news.is_empty() {
            return Ok(());
        }
        let all = before.iter().chain(news).map(|list| pem::encode(&Pem::new("X509 CRL", list.der())));
        Ok(secrets::publish(&self.folder.join(RETIRED_FILE), all.collect::<String>().as_bytes())?)
    }

    /// What any of the authorities has revoked, those among them that were retired.
    ///
    /// # Errors
    /// [`AuthorityFault`].
    pub fn revoked(&self) -> Result<BTreeSet<String>, AuthorityFault> {
        revoked_in(&self.folder)
    }

    pub(super) fn lists(&self) -> Result<Vec<RevocationList>, AuthorityFault> {
        lists_in(&self.folder, CRL_FILE)
    }
}

/// What any of the authorities of this folder has revoked, those among them that were retired; for whoever holds its lock already or only reads.
pub(crate) fn revoked_in(folder: &Path) -> Result<BTreeSet<String>, AuthorityFault> {
    let mut lists = lists_in(folder, CRL_FILE)?;
    lists.extend(lists_in(folder, RETIRED_FILE)?);
    Ok(lists.iter().flat_map(|list| list.revoked.keys().map(ToString::to_string)).collect())
}

fn lists_in(folder: &Path, name: &str) -> Result<Vec<RevocationList>, AuthorityFault> {
    let path = folder.join(name);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(|source| file(&path, source))?,
    };
    RevocationList::all_of(&text).map_err(|source| AuthorityFault::Credentials { path, source })
}
