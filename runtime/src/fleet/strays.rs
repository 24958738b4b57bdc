//! Those whose certificates an operator has issued, and whose folders are not among those of the mesh.
//!
//! * It decides: who they are, as far as the authority has written down whom it issued what.
//! * It never does: know where such a certificate lies, or whether it was thrown away. Nobody can renew it but
//!   whoever has it; what matters is that he is told before it does no more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::authority::Issued;

/// Somebody with a certificate that lies in no folder of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stray {
    /// Who.
    pub holder: String,
    /// The last second of the certificate, since the Unix epoch.
    pub not_after: i64,
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.holder)
    }
}

/// Who holds a certificate of the authority `of`, valid and not revoked at the second `now`, is no member, and has
/// none of another authority. Of whom nothing is written down who issued it (earlier builds), it counts too.
pub(super) fn strays(
    issued: &[Issued],
    of: &str,
    members: &BTreeSet<String>,
    revoked: &BTreeSet<String>,
    now: i64,
) -> Vec<Stray> {
    let is_theirs = |one: &&Issued| !members.contains(&one.holder);
    let does = |one: &&Issued| one.not_after > now && !revoked.contains(&one.serial);
    let mut by_it: BTreeMap<&str, i64> = BTreeMap::new();
    let mut by_others: BTreeSet<&str> = BTreeSet::new();
    for one in issued.iter().filter(is_theirs).filter(does) {
        if one.issuer == of || one.issuer.is_empty() {
            let ends = by_it.entry(&one.holder).or_default();
            *ends = one.not_after.max(*ends);
        } else {
            by_others.insert(&one.holder);
        }
    }
    let left = by_it.into_iter().filter(|(holder, _)| !by_others.contains(holder));
    left.map(|(holder, not_after)| Stray { holder: holder.to_owned(), not_after }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_certificate_elsewhere_that_still_does_is_one() {
        let issued = |(serial, holder, issuer, not_after): (&str, &str, &str, i64)| Issued {
            serial: serial.into(),
            holder: holder.into(),
            issuer: issuer.into(),
            not_before: 0,
            not_after,
            fingerprint: String::new(),
        };
        let members = BTreeSet::from(["node us/n1".to_owned()]);
        let revoked = BTreeSet::from(["5".to_owned()]);
        for (lines, want) in [
            (vec![("1", "node us/n1", "old", 100)], vec![]),
            (vec![("1", "client us/shop", "old", 100)], vec![("client us/shop", 100)]),
            (vec![("1", "client us/shop", "", 100)], vec![("client us/shop", 100)]),
            (
                vec![("1", "client us/shop", "old", 90), ("2", "client us/shop", "old", 80)],
                vec![("client us/shop", 90)],
            ),
            (vec![("1", "client us/shop", "old", 49)], vec![]),
            (vec![("5", "client us/shop", "old", 100)], vec![]),
            (vec![("1", "client us/shop", "old", 100), ("2", "client us/shop", "new", 100)], vec![]),
            (
                vec![("1", "client us/shop", "old", 100), ("5", "client us/shop", "new", 100)],
                vec![("client us/shop", 100)],
            ),
            (vec![("1", "client us/shop", "older", 100)], vec![]),
        ] {
            let lines: Vec<Issued> = lines.into_iter().map(issued).collect();
            let found = strays(&lines, "old", &members, &revoked, 50);
            let found: Vec<(&str, i64)> =
                found.iter().map(|one| (one.holder.as_str(), one.not_after)).collect();
            assert_eq!(found, want, "{lines:?}");
        }
    }
}
