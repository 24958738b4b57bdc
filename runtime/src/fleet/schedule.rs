//! When a certificate is to be renewed.
//!
//! * It decides: the moment, which lies in the certificate itself: nobody need remember it.
//! * It never does: renew.

use rhumb_transport::Certificate;

/// The part of its life after which a certificate is renewed, in hundredths. As linkerd does.
const AFTER: i64 = 70;
/// The part of its life over which certificates of one day are spread, in hundredths.
const SPREAD: i64 = 10;

/// The second since the Unix epoch from which on a certificate is to be renewed: at 70 % of its life, and up to
/// 10 % later. How much is drawn from its fingerprint, so that it is the same whoever asks, and certificates that
/// were issued together are not renewed together.
#[must_use]
pub fn renew_at(certificate: &Certificate) -> i64 {
    let life = certificate.not_after.saturating_sub(certificate.not_before).max(0);
    let drawn = u16::from_be_bytes([certificate.fingerprint[0], certificate.fingerprint[1]]);
    let spread = i128::from(life) * i128::from(SPREAD) * i128::from(drawn) / (100 * 65_536);
    let after = i128::from(life) * i128::from(AFTER) / 100 + spread;
    certificate.not_before.saturating_add(i64::try_from(after).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rhumb_core::{Principal, Region, Role};
    use rhumb_transport::TrustDomain;
    use rhumb_transport::issue::{Authority, Validity};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn certificates_are_renewed_between_70_and_80_hundredths_of_their_life_and_not_together() {
        let domain = TrustDomain::new("mesh.example").expect("valid");
        let valid = |to| Validity { not_before: at(0), not_after: at(to) };
        let authority = Authority::create(domain, valid(2_000_000)).expect("created");
        let issue = |n: u32| {
            let region = Region::new("us-east").expect("valid");
            let who = Principal { role: Role::Node, region, name: format!("n{n}") };
            authority.issue(&who, valid(1_000_000)).expect("issued").certificate
        };
        let all: Vec<Certificate> = (0..40).map(issue).collect();
        let moments: Vec<i64> = all.iter().map(renew_at).collect();
        assert!(moments.iter().all(|at| (700_000..800_000).contains(at)), "{moments:?}");
        assert_eq!(moments, all.iter().map(renew_at).collect::<Vec<_>>(), "the same whenever it is asked");
        let mut tenths: Vec<i64> = moments.iter().map(|at| at / 10_000).collect();
        tenths.sort_unstable();
        tenths.dedup();
        assert!(tenths.len() >= 6, "spread over the ten hundredths: {tenths:?}");
    }

    #[test]
    fn a_certificate_with_odd_times_is_due_at_once_and_nothing_overflows() {
        let domain = TrustDomain::new("mesh.example").expect("valid");
        let authority =
            Authority::create(domain, Validity { not_before: at(5), not_after: at(9) }).expect("created");
        let mut odd = authority.certificate().clone();
        (odd.not_before, odd.not_after) = (i64::MIN, i64::MAX);
        assert!(renew_at(&odd) < i64::MAX);
        (odd.not_before, odd.not_after) = (10, 5);
        assert_eq!(renew_at(&odd), 10);
    }
}
