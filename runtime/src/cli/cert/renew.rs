//! `rhumb cert renew`: those of a mesh that are due, or those that are named.

use std::time::Duration;

use clap::Args;
use rhumb_core::NodeId;
use serde::Serialize;

use super::{Shown, date, now, validity};
use crate::authority::AuthorityFolder;
use crate::cli::fleet::MeshDir;
use crate::cli::output::{Done, Failure, Output};
use crate::fleet::{Fleet, Member, Missed, Out, renew_at, told_of_missed};
use crate::identity::IDENTITY_FILE;

/// Renew certificates: those of the nodes that are named, else those of all nodes, clients and operators that
/// are due, which is from 70 % of their life on. What was revoked is renewed only where it is named.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb cert renew --mesh mesh\n  rhumb cert renew --mesh mesh eu-central/n1 --valid 30d\n\nA running node takes its own up within 10 s, or at once on SIGHUP."
)]
pub struct Renew {
    #[command(flatten)]
    mesh: MeshDir,
    /// These nodes, due or not, and revoked or not.
    #[arg(value_name = "REGION/NODE")]
    nodes: Vec<NodeId>,
    /// Everybody, due or not, whose certificate was not revoked.
    #[arg(long, conflicts_with = "nodes")]
    all: bool,
    /// How long the new ones are valid, 24h to 825d; otherwise as long as the present ones are.
    #[arg(long, value_name = "TIME", value_parser = validity)]
    valid: Option<Duration>,
}

#[derive(Debug, Serialize)]
struct RenewAnswer {
    renewed: Vec<Shown>,
    kept: Vec<Kept>,
    /// Who could not be renewed, or whose folder could not be delivered.
    missed: Vec<Missed>,
}

/// One that is not due, or that nobody believes any more.
#[derive(Debug, Serialize)]
struct Kept {
    holder: String,
    why: Why,
    renew_at: String,
    not_after: String,
}

/// Why one is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Why {
    NotDue,
    #[serde(untagged)]
    Out(Out),
}

impl Renew {
    pub(super) fn run(self, output: &Output) -> Result<Done, Failure> {
        let fleet = self.mesh.open()?;
        let members = self.members(&fleet)?;
        let mut answer = RenewAnswer { renewed: Vec::new(), kept: Vec::new(), missed: Vec::new() };
        let mut delivered = Vec::new();
        for member in members {
            match self.look_after(&fleet, member, &mut answer) {
                // Also one that is not due: an earlier run may not have reached it.
                Ok(true) => delivered.push(member),
                Ok(false) => {}
                Err(why) => {
                    answer.missed.push(Missed::of(member, &why));
                    delivered.push(member);
                }
            }
        }
        answer.missed.extend(fleet.deliver_all(delivered));
        output.answer(&answer, told(&answer));
        if !answer.renewed.is_empty() {
            output.note("a running node takes its own up within 10 s, or at once on SIGHUP");
        }
        Ok(if answer.missed.is_empty() { Done::Well } else { Done::InPart })
    }

    /// Renews one, if that is due or asked for; says whether it is to be delivered. What nobody believes any more is
    /// renewed only where it is named: whoever revoked it did not mean to give its holder another.
    fn look_after(&self, fleet: &Fleet, member: &Member, answer: &mut RenewAnswer) -> anyhow::Result<bool> {
        let present = member.certificate()?;
        let at = renew_at(&present);
        let is_named = !self.nodes.is_empty();
        // Nobody revokes it between the look and the renewal.
        let authority = AuthorityFolder::open(&fleet.authority())?;
        let out = if is_named { None } else { fleet.out(&authority, member)? };
        let is_due = is_named || self.all || now() >= at;
        if out.is_some() || !is_due {
            let (holder, why) = (present.holder.to_string(), out.map_or(Why::NotDue, Why::Out));
            answer.kept.push(Kept { holder, why, renew_at: date(at), not_after: date(present.not_after) });
            return Ok(out.is_none());
        }
        let issued = fleet.renew(&authority, member, self.valid)?;
        answer.renewed.push(Shown::of(&member.folder.join(IDENTITY_FILE), &issued));
        Ok(true)
    }

    fn members<'a>(&self, fleet: &'a Fleet) -> Result<Vec<&'a Member>, Failure> {
        if self.nodes.is_empty() {
            return Ok(fleet.members().iter().collect());
        }
        let named = |id: &NodeId| {
            fleet.node(id).ok_or_else(|| Failure::Usage(format!("{id} is no node of this mesh")))
        };
        self.nodes.iter().map(named).collect()
    }
}

fn told(answer: &RenewAnswer) -> String {
    let renewed = answer.renewed.iter().map(ToString::to_string);
    let kept = answer.kept.iter();
    let kept = kept.map(|kept| match kept.why {
        Why::NotDue => format!("{}: not due before {}, ends {}", kept.holder, kept.renew_at, kept.not_after),
        Why::Out(out) => format!("{}: {out}, not renewed", kept.holder),
    });
    renewed.chain(kept).collect::<Vec<_>>().join("\n") + &told_of_missed(&answer.missed)
}
