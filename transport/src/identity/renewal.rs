//! Taking up what was put into a node's files while it runs.
//!
//! * It decides: which of what was found takes the place of what is in force.
//! * It never does: give up a certificate that works for one that does not.
//! * Invariants: who this side is never changes; what was revoked is not forgotten; this side's own
//!   certificate is always one of an authority that it believes.
//!
//! Certificate and trust are judged one by one, so that a bad certificate does not keep a revocation
//! out. That this side's own certificate is revoked or expired is no reason against new trust: the
//! others go by it all the same.

use std::time::Duration;

use super::{Credentials, CredentialsError, IdentityError, Trust};

/// What was found: PEM texts, or why one could not be read.
#[derive(Debug)]
pub struct Reading<'a> {
    /// The certificate chain, leaf first, and its key.
    pub identity: Result<&'a [u8], String>,
    /// The authorities.
    pub authorities: Result<&'a [u8], String>,
    /// What they have revoked; `None`: nothing ever.
    pub revocations: Result<Option<&'a [u8]>, String>,
}

/// What became of a part of what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is what is in force.
    Same,
    /// It takes the place of what was in force.
    Taken,
    /// It does not, for this reason: what was in force stays.
    Refused(String),
}

/// What is in force from now on.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// To be used.
    pub credentials: Credentials,
    /// What became of the certificate.
    pub identity: Outcome,
    /// What became of the authorities and of what they have revoked.
    pub trust: Outcome,
}

impl Credentials {
    /// What is in force after this was found, at a time since the Unix epoch.
    #[must_use]
    pub fn renewed(&self, found: &Reading<'_>, now: Duration) -> Renewal {
        let trust = match self.next_trust(found) {
            Ok(trust) if trust == *self.trust() => Outcome::Same,
            Ok(trust) => {
                let (credentials, identity) = self.believing(trust).next_identity(found, now);
                match credentials.verify(now) {
                    Ok(())
                    | Err(CredentialsError::Identity(
                        IdentityError::Revoked | IdentityError::Expired | IdentityError::RevocationUnknown,
                    )) => {
                        return Renewal { credentials, identity, trust: Outcome::Taken };
                    }
                    Err(error) => Outcome::Refused(format!("this side would not believe itself: {error}")),
                }
            }
            Err(reason) => Outcome::Refused(reason),
        };
        let (credentials, identity) = self.clone().next_identity(found, now);
        Renewal { credentials, identity, trust }
    }

    fn next_trust(&self, found: &Reading<'_>) -> Result<Trust, String> {
        let (authorities, revocations) = (found.authorities.clone()?, found.revocations.clone()?);
        let trust = Trust::from_pem(authorities, revocations).map_err(|e| e.to_string())?;
        let trust = trust.with(self.trust().revocations());
        trust.may_follow(self.trust()).map_err(|e| e.to_string())?;
        Ok(trust)
    }

    fn next_identity(self, found: &Reading<'_>, now: Duration) -> (Self, Outcome) {
        let next = match &found.identity {
            Ok(identity) => Self::new(identity, self.trust().clone()).map_err(|e| e.to_string()),
            Err(reason) => Err(reason.clone()),
        };
        let judged = next.and_then(|next| {
            if next.chain() == self.chain() {
                return Ok((self.clone(), Outcome::Same));
            }
            next.may_follow(&self).map_err(|e| e.to_string())?;
            next.verify(now).map_err(|e| e.to_string())?;
            Ok((next, Outcome::Taken))
        });
        judged.unwrap_or_else(|reason| (self, Outcome::Refused(reason)))
    }

    /// Whether this is an identity of the same member of the same mesh.
    ///
    /// # Errors
    /// [`CredentialsError::Somebody`].
    pub(crate) fn may_follow(&self, before: &Self) -> Result<(), CredentialsError> {
        let named = |it: &Self| format!("{} of {}", it.principal(), it.trust_domain());
        let (expected, found) = (named(before), named(self));
        if expected == found { Ok(()) } else { Err(CredentialsError::Somebody { expected, found }) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use rhumb_core::{Principal, Region, Role};

    use super::super::issue::{Authority, Validity};
    use super::super::{Certificate, TrustDomain};
    use super::*;

    const DAY: u64 = 24 * 3600;
    /// When all of this takes place: day 100.
    const NOW: Duration = Duration::from_secs(100 * DAY);

    fn days(from: u64, to: u64) -> Validity {
        let at = |day| SystemTime::UNIX_EPOCH + Duration::from_secs(day * DAY);
        Validity { not_before: at(from), not_after: at(to) }
    }

    fn authority() -> Authority {
        let domain = TrustDomain::new("mesh.example").expect("valid");
        Authority::create(domain, days(0, 1000)).expect("created")
    }

    fn issue(authority: &Authority, name: &str, validity: Validity) -> String {
        let region = Region::new("us-east").expect("valid");
        let who = Principal { role: Role::Node, region, name: name.into() };
        authority.issue(&who, validity).expect("issued").identity_pem
    }

    fn of(authority: &Authority, identity: &str, list: Option<&str>) -> Credentials {
        let trust = Trust::from_pem(authority.certificate_pem().as_bytes(), list.map(str::as_bytes));
        Credentials::new(identity.as_bytes(), trust.expect("trust")).expect("usable")
    }

    fn revoking(authority: &Authority, identities: &[&str], number: u128) -> String {
        let serial = |pem: &&str| Certificate::all_of(pem.as_bytes()).expect("readable")[0].serial.clone();
        let revoked = identities.iter().map(|pem| (serial(pem), 0)).collect();
        authority.revocations(number, &revoked, days(0, 1).not_before).expect("signed")
    }

    /// What becomes of identity and trust.
    fn check(
        present: &Credentials,
        identity: &str,
        authorities: &str,
        list: Option<&str>,
    ) -> (Renewal, String) {
        let found = Reading {
            identity: Ok(identity.as_bytes()),
            authorities: Ok(authorities.as_bytes()),
            revocations: Ok(list.map(str::as_bytes)),
        };
        let renewal = present.renewed(&found, NOW);
        let told = format!("{:?} {:?}", renewal.identity, renewal.trust);
        (renewal, told)
    }

    #[test]
    fn a_renewed_certificate_takes_the_place_of_the_old_one() {
        let ca = authority();
        let old = issue(&ca, "n1", days(50, 110));
        let new = issue(&ca, "n1", days(99, 190));
        let present = of(&ca, &old, None);
        let (renewal, told) = check(&present, &new, ca.certificate_pem(), None);
        assert_eq!(told, "Taken Same");
        assert_eq!(renewal.credentials.certificate().not_after, 190 * DAY as i64);
        assert_eq!(check(&present, &old, ca.certificate_pem(), None).1, "Same Same");
    }

    #[test]
    fn a_certificate_that_would_not_do_is_refused_and_the_old_one_stays() {
        let (ca, stranger) = (authority(), authority());
        let old = issue(&ca, "n1", days(50, 110));
        let present = of(&ca, &old, None);
        let cut = &old[..old.find("-----BEGIN PRIVATE").expect("a key")];
        for (found, why) in [
            (issue(&ca, "n2", days(99, 190)), "expected that of node us-east/n1"),
            (issue(&ca, "n1", days(10, 99)), "expired"),
            (issue(&ca, "n1", days(101, 190)), "not valid yet"),
            (issue(&stranger, "n1", days(99, 190)), "not issued by this mesh's authority"),
            (ca.to_pem(), "an authority's"),
            (cut.to_owned(), "private key"),
            (String::new(), "no CERTIFICATE"),
        ] {
            let (renewal, told) = check(&present, &found, ca.certificate_pem(), None);
            assert!(told.starts_with("Refused(") && told.ends_with(" Same") && told.contains(why), "{told}");
            assert_eq!(renewal.credentials.certificate(), present.certificate());
        }
        let unreadable = Reading {
            identity: Err("mode 644".to_owned()),
            authorities: Ok(ca.certificate_pem().as_bytes()),
            revocations: Ok(None),
        };
        assert_eq!(present.renewed(&unreadable, NOW).identity, Outcome::Refused("mode 644".to_owned()));
    }

    #[test]
    fn a_bad_certificate_does_not_keep_a_revocation_out() {
        let ca = authority();
        let (own, other) = (issue(&ca, "n1", days(50, 110)), issue(&ca, "n2", days(50, 110)));
        let present = of(&ca, &own, None);
        let list = revoking(&ca, &[&other], 1);
        let (renewal, told) = check(&present, "", ca.certificate_pem(), Some(&list));
        assert!(told.starts_with("Refused(") && told.ends_with(" Taken"), "{told}");
        let revoked = of(&ca, &other, None);
        assert!(renewal.credentials.trust().revokes(&revoked.chain()[0]));
        assert!(!renewal.credentials.trust().revokes(&present.chain()[0]));
    }

    #[test]
    fn a_revoked_certificate_is_not_taken_and_ones_own_revocation_is() {
        let ca = authority();
        let (own, next) = (issue(&ca, "n1", days(50, 110)), issue(&ca, "n1", days(99, 190)));
        let present = of(&ca, &own, None);
        let list = revoking(&ca, &[&next], 1);
        let (_, told) = check(&present, &next, ca.certificate_pem(), Some(&list));
        assert!(told.contains("revoked") && told.ends_with(" Taken"), "{told}");
        let list = revoking(&ca, &[&own], 1);
        let (renewal, told) = check(&present, &own, ca.certificate_pem(), Some(&list));
        assert_eq!(told, "Same Taken");
        let said = renewal.credentials.verify(NOW);
        assert_eq!(said, Err(CredentialsError::Identity(IdentityError::Revoked)));
    }

    #[test]
    fn what_is_revoked_is_not_forgotten() {
        let ca = authority();
        let (own, other) = (issue(&ca, "n1", days(50, 110)), issue(&ca, "n2", days(50, 110)));
        let second = revoking(&ca, &[&other], 2);
        let present = of(&ca, &own, Some(&second));
        for (found, why) in [
            (Some(revoking(&ca, &[], 1)), "here is number 1"),
            (None, "here is none"),
            (Some("x".into()), "none"),
        ] {
            let (renewal, told) = check(&present, &own, ca.certificate_pem(), found.as_deref());
            assert!(told.starts_with("Same Refused(") && told.contains(why), "{told}");
            assert_eq!(renewal.credentials.trust(), present.trust());
        }
        let third = revoking(&ca, &[], 3);
        assert_eq!(check(&present, &own, ca.certificate_pem(), Some(&third)).1, "Same Taken");
    }

    #[test]
    fn a_forged_list_is_refused() {
        let ca = authority();
        let own = issue(&ca, "n1", days(50, 110));
        let mut lines: Vec<String> = revoking(&ca, &[&own], 1).lines().map(str::to_owned).collect();
        let last = lines.iter().rposition(|line| !line.starts_with('-')).expect("a body");
        let flipped = if lines[last].starts_with('A') { "B" } else { "A" };
        lines[last].replace_range(..1, flipped);
        let forged = lines.join("\n");
        let (_, told) = check(&of(&ca, &own, None), &own, ca.certificate_pem(), Some(&forged));
        assert!(told.starts_with("Same Refused(") && told.contains("has not signed its list"), "{told}");
        let stranger = revoking(&authority(), &[&own], 9);
        let (_, told) = check(&of(&ca, &own, None), &own, ca.certificate_pem(), Some(&stranger));
        assert_eq!(told, "Same Same", "a list of another authority says nothing here");
    }

    #[test]
    fn one_authority_takes_over_from_another_with_overlap() {
        let (old, new) = (authority(), authority());
        let both = format!("{}{}", old.certificate_pem(), new.certificate_pem());
        let (first, second) = (issue(&old, "n1", days(50, 190)), issue(&new, "n1", days(99, 190)));
        let list = revoking(&old, &[], 1);
        let present = of(&old, &first, Some(&list));
        // Too soon: this side's own certificate is still the old one's.
        let (_, told) = check(&present, &first, new.certificate_pem(), Some(&list));
        assert!(told.starts_with("Same Refused(") && told.contains("would not believe itself"), "{told}");
        // Believe both, then be issued by the new one, then believe only that.
        let (renewal, told) = check(&present, &first, &both, Some(&list));
        assert_eq!(told, "Same Taken");
        let (renewal, told) = check(&renewal.credentials, &second, &both, Some(&list));
        assert_eq!(told, "Taken Same");
        let (renewal, told) = check(&renewal.credentials, &second, new.certificate_pem(), None);
        assert_eq!(told, "Same Taken", "with its authority, its list goes");
        of(&new, &second, None).verify(NOW).expect("believed");
        assert_eq!(renewal.credentials.trust().authorities().count(), 1);
    }
}
