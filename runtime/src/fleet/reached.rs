//! Whether a stage of a rotation has reached every running node, by what they say.
//!
//! * It decides: who is behind, and in what.
//! * It never does: take silence for agreement. A node that does not answer is behind.

use rhumb_core::NodeId;

use super::NotYet;
use crate::mesh::status::{MeshStatus, NodeStatus};

/// Who does not believe the authority with this fingerprint yet.
#[must_use]
pub fn prepared_everywhere<'a>(
    nodes: impl Iterator<Item = &'a NodeId>,
    seen: &MeshStatus,
    fingerprint: &str,
) -> Vec<NotYet> {
    behind(nodes, seen, |node| {
        let believes = node.certificate.authorities.iter().any(|known| known == fingerprint);
        (!believes).then(|| "it does not believe the new authority yet".to_owned())
    })
}

/// Who does not believe the authority with this fingerprint alone.
#[must_use]
pub fn retired_everywhere<'a>(
    nodes: impl Iterator<Item = &'a NodeId>,
    seen: &MeshStatus,
    fingerprint: &str,
) -> Vec<NotYet> {
    behind(nodes, seen, |node| match node.certificate.authorities.as_slice() {
        [only] if only == fingerprint => None,
        all if all.iter().any(|known| known == fingerprint) => {
            Some("it still believes the old authority too".to_owned())
        }
        _ => Some("it does not believe the new authority yet".to_owned()),
    })
}

/// Who has not got a certificate of this authority yet, or has a connection, with a node or a client, on which
/// another was shown; also one that has given way and still ends calls: it would be closed with them.
#[must_use]
pub fn activated_everywhere<'a>(
    nodes: impl Iterator<Item = &'a NodeId>,
    seen: &MeshStatus,
    issuer: &str,
) -> Vec<NotYet> {
    behind(nodes, seen, |node| {
        if node.certificate.issuer != issuer {
            return Some(format!("it runs with a certificate of {}", node.certificate.issuer));
        }
        let old = node.links.iter().find(|link| link.up && link.issuer.as_deref() != Some(issuer));
        if let Some(old) = old {
            let by = old.issuer.as_deref().unwrap_or("an authority that it does not name");
            return Some(format!("its connection with {} still goes by a certificate of {by}", old.node));
        }
        let mut giving_way =
            node.links.iter().flat_map(|link| link.draining.iter().map(move |by| (link, by)));
        if let Some((old, by)) = giving_way.find(|(_, by)| *by != issuer) {
            return Some(format!(
                "calls still end on a connection with {} by a certificate of {by}",
                old.node
            ));
        }
        let old: u64 = node.guests.iter().filter(|(by, _)| *by != issuer).map(|(_, count)| count).sum();
        (old > 0).then(|| format!("{old} clients are connected with certificates of other authorities"))
    })
}

fn behind<'a>(
    nodes: impl Iterator<Item = &'a NodeId>,
    seen: &MeshStatus,
    judge: impl Fn(&NodeStatus) -> Option<String>,
) -> Vec<NotYet> {
    let each = nodes.filter_map(|id| {
        let who = id.to_string();
        let silent = seen.silent.iter().find(|silent| silent.node == who);
        let why = match (seen.nodes.iter().find(|node| node.node == who), silent) {
            (Some(node), _) => judge(node)?,
            (None, Some(silent)) => format!("it does not answer: {}", silent.why),
            (None, None) => "it was not asked".to_owned(),
        };
        Some(NotYet { who, why })
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::status::{CertificateStatus, Link, Silent};

    fn node(name: &str, issuer: &str, believes: &[&str], links: &[(&str, &str)]) -> NodeStatus {
        let link = |(node, issuer): &(&str, &str)| Link {
            node: (*node).into(),
            up: true,
            issuer: Some((*issuer).into()),
            ..Link::default()
        };
        let authorities = believes.iter().map(|known| (*known).to_owned()).collect();
        NodeStatus {
            node: name.into(),
            links: links.iter().map(link).collect(),
            certificate: CertificateStatus {
                issuer: issuer.into(),
                authorities,
                ..CertificateStatus::default()
            },
            ..NodeStatus::default()
        }
    }

    fn told(behind: Vec<NotYet>) -> Vec<String> {
        behind.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_stage_has_reached_everywhere_when_every_node_says_so() {
        let nodes: Vec<NodeId> = ["us/n1", "eu/n1", "ap/n1"].map(|n| n.parse().expect("a node")).into();
        let seen = MeshStatus {
            nodes: vec![
                node("us/n1", "new", &["f-old", "f-new"], &[("eu/n1", "old"), ("ap/n1", "new")]),
                node("eu/n1", "old", &["f-old"], &[("us/n1", "new")]),
            ],
            silent: vec![Silent { node: "ap/n1".into(), why: "no route".into(), for_ms: None }],
            ..MeshStatus::default()
        };
        assert_eq!(
            told(prepared_everywhere(nodes.iter(), &seen, "f-new")),
            ["eu/n1: it does not believe the new authority yet", "ap/n1: it does not answer: no route"]
        );
        assert_eq!(
            told(activated_everywhere(nodes.iter(), &seen, "new")),
            [
                "us/n1: its connection with eu/n1 still goes by a certificate of old",
                "eu/n1: it runs with a certificate of old",
                "ap/n1: it does not answer: no route"
            ]
        );
        let mut clients = node("us/n1", "new", &[], &[("eu/n1", "new")]);
        clients.guests = [("old".to_owned(), 2), ("new".to_owned(), 1)].into();
        let clients = MeshStatus { nodes: vec![clients], ..MeshStatus::default() };
        assert_eq!(
            told(activated_everywhere(nodes[..1].iter(), &clients, "new")),
            ["us/n1: 2 clients are connected with certificates of other authorities"]
        );
        let mut calls = node("us/n1", "new", &[], &[("eu/n1", "new")]);
        calls.links[0].draining = vec!["new".into(), "old".into()];
        let calls = MeshStatus { nodes: vec![calls], ..MeshStatus::default() };
        assert_eq!(
            told(activated_everywhere(nodes[..1].iter(), &calls, "new")),
            ["us/n1: calls still end on a connection with eu/n1 by a certificate of old"]
        );
        let well = MeshStatus {
            nodes: vec![node("us/n1", "new", &["f-new"], &[("eu/n1", "new")])],
            ..MeshStatus::default()
        };
        assert_eq!(told(prepared_everywhere(nodes[..1].iter(), &well, "f-new")), Vec::<String>::new());
        assert_eq!(told(activated_everywhere(nodes[..1].iter(), &well, "new")), Vec::<String>::new());
    }

    #[test]
    fn an_authority_is_retired_when_every_node_believes_the_new_one_alone() {
        let nodes: [NodeId; 1] = ["us/n1".parse().expect("a node")];
        for (believes, want) in [
            (&["f-new"][..], None),
            (&["f-old", "f-new"], Some("us/n1: it still believes the old authority too")),
            (&["f-old"], Some("us/n1: it does not believe the new authority yet")),
            (&[], Some("us/n1: it does not believe the new authority yet")),
        ] {
            let seen =
                MeshStatus { nodes: vec![node("us/n1", "new", believes, &[])], ..MeshStatus::default() };
            let behind = told(retired_everywhere(nodes.iter(), &seen, "f-new"));
            assert_eq!(behind.first().map(String::as_str), want, "{believes:?}");
        }
        let nobody = told(retired_everywhere(nodes.iter(), &MeshStatus::default(), "f-new"));
        assert_eq!(nobody, ["us/n1: it was not asked"]);
    }
}
