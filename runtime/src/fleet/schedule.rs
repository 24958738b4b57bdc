//! When a certificate is to be renewed, and for how long.
//!
//! * It decides: the moment, which lies in the certificate itself: nobody need remember it; and the life of the
//!   next one. That an authority's end cut one short does not make the next ones short.
//! * It never does: renew.

use std::time::Duration;

use rhumb_transport::Certificate;
use rhumb_transport::issue::SKEW;

use crate::authority::Issued;

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

/// For how long the next certificate is issued: as long as the present one was. One that ends with its authority
/// was cut short: then as long as the latest one of this holder that was not, and where all were, the longest of
/// them. `issued` is the oldest first; `ends` are the last seconds of the authorities.
#[must_use]
pub fn next_life(present: &Issued, issued: &[Issued], ends: &[i64]) -> Duration {
    let seconds = |one: &Issued| one.not_after.saturating_sub(one.not_before).max(0) as u64;
    let life = |one: &Issued| Duration::from_secs(seconds(one)).saturating_sub(SKEW);
    let is_whole = |one: &&Issued| !ends.contains(&one.not_after);
    let its = || issued.iter().filter(|one| one.holder == present.holder).chain([present]);
    let whole = Some(present).filter(is_whole).or_else(|| its().rfind(is_whole));
    whole.or_else(|| its().max_by_key(|one| seconds(one))).map(life).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

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
    fn a_life_that_an_authority_has_cut_short_does_not_make_the_next_one_short() {
        const DAY: i64 = 24 * 3600;
        let ahead = SKEW.as_secs() as i64;
        let one = |holder: &str, at: i64, days: i64| Issued {
            serial: at.to_string(),
            holder: holder.to_owned(),
            not_before: at * DAY - ahead,
            not_after: (at + days) * DAY,
            fingerprint: String::new(),
            issuer: String::new(),
        };
        // The authorities end on days 400 and 4000. Who, from which day on, for how many.
        let ends = [400 * DAY, 4000 * DAY];
        for (issued, want) in [
            (vec![("n1", 0, 90)], 90),
            (vec![("n1", 0, 90), ("n1", 70, 30)], 30),
            (vec![("n1", 300, 90), ("n1", 390, 10)], 90),
            (vec![("n1", 200, 90), ("n1", 290, 30), ("n1", 390, 10), ("n1", 391, 9)], 30),
            (vec![("n1", 300, 90), ("n2", 301, 5), ("n1", 390, 10)], 90),
            (vec![("n1", 100, 300), ("n1", 390, 10)], 300),
            (vec![("n1", 390, 10)], 10),
        ] {
            let issued: Vec<Issued> =
                issued.iter().map(|(holder, at, days)| one(holder, *at, *days)).collect();
            let present = issued.last().expect("one");
            let days = next_life(present, &issued, &ends).as_secs() as i64 / DAY;
            assert_eq!(days, want, "{issued:?}");
        }
        assert_eq!(next_life(&one("n1", 5, 90), &[], &ends).as_secs() as i64, 90 * DAY, "issued elsewhere");
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
