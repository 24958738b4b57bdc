//! The typed client: asks any node of a mesh, over QUIC with a certificate.
//!
//! * It decides: which node a question goes to, and what a fault means to the one who asked.
//! * It never does: ask again what is not known to be safe to run twice, or wait for ever.
//! * Invariant: every question ends in its typed reply or in a fault that says whether the service
//!   may have run it.

mod any;
#[cfg(feature = "rocks")]
pub mod audit;
mod consistent;
pub mod directory;
pub mod key;
pub mod kv;
mod mesh;
pub mod survey;

use std::future::Future;
use std::time::Duration;

use rhumb_actors::remote::Remote;
use rhumb_core::{Delivery, Fault, FaultKind, NodeId};
use tokio::time::Instant;

pub use crate::clock::now_millis as now_ms;
#[cfg(feature = "rocks")]
pub(crate) use mesh::LOOK_EVERY as PROGRAMS_LOOK_EVERY;
pub use mesh::{ClientError, MeshClient};

/// Asks nodes. [`MeshClient`] does so over QUIC; a test may put a scripted mesh in its place.
pub trait Ask: Send + Sync + 'static {
    /// Asks a node and waits for its reply, until the deadline.
    fn ask<M: Remote + Sync>(
        &self,
        node: &NodeId,
        message: &M,
        deadline: Duration,
    ) -> impl Future<Output = Result<M::Reply, Fault>> + Send;
}

/// How long to wait before a question is asked again.
const BETWEEN: Duration = Duration::from_millis(200);

/// Asks, and asks again while the outcome is unknown, if running the message twice has the effect of
/// once. After an unknown outcome a question that surely did not arrive does not make it known.
///
/// # Errors
/// The last fault; its delivery is what may be concluded of all the questions together.
pub async fn ask_until_known<M: Remote + Sync>(
    ask: &impl Ask,
    node: &NodeId,
    message: &M,
    within: Duration,
) -> Result<M::Reply, Fault> {
    let until = Instant::now() + within;
    let mut unknown = false;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let fault = match ask.ask(node, message, left.min(M::DEADLINE)).await {
            Ok(reply) => return Ok(reply),
            Err(fault) => fault,
        };
        unknown |= fault.delivery() == Delivery::Unknown;
        let over = Instant::now() + BETWEEN >= until;
        if !unknown || !M::IDEMPOTENT || over {
            let delivery = if unknown { Delivery::Unknown } else { fault.delivery() };
            return Err(Fault { delivery, ..fault });
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

/// A short stable code for a fault, for metrics, JSON and receipts.
#[must_use]
pub fn fault_code(kind: &FaultKind) -> &'static str {
    match kind {
        FaultKind::Unreachable(_) => "unreachable",
        FaultKind::Deadline(_) => "deadline",
        FaultKind::Full(_) => "full",
        FaultKind::Draining => "draining",
        FaultKind::Gate(_) => "gate",
        FaultKind::UnknownMessage(_) => "unknown_message",
        FaultKind::Decode { .. } => "decode",
        FaultKind::TooLarge { .. } => "too_large",
        FaultKind::Unauthorized(_) => "unauthorized",
        FaultKind::Handler(_) => "handler",
        FaultKind::Storage(_) => "storage",
        FaultKind::Cycle(_) => "cycle",
        FaultKind::NotHosted(_) => "not_hosted",
        FaultKind::Moved(_) => "moved",
        FaultKind::Failed(_) => "failed",
        FaultKind::Panicked(_) => "panicked",
        FaultKind::ClassLowered { .. } => "class_lowered",
        FaultKind::Guarantee { .. } => "guarantee",
        FaultKind::Skew { .. } => "skew",
        FaultKind::WrongEpoch { .. } => "wrong_epoch",
        FaultKind::Abandoned => "abandoned",
        FaultKind::KeyReused(_) => "key_reused",
        FaultKind::NotKept(_) => "not_kept",
        FaultKind::Overloaded(_) => "overloaded",
        FaultKind::Shut(_) => "shut",
        FaultKind::Unowned(_) => "unowned",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rhumb_actors::escrow::messages::{Confirm, Refusal};

    use super::*;

    /// Answers with these faults, one after the other, then with a refusal.
    struct Faulty(Mutex<Vec<Fault>>);

    impl Ask for Faulty {
        async fn ask<M: Remote + Sync>(&self, _: &NodeId, _: &M, _: Duration) -> Result<M::Reply, Fault> {
            if let Some(fault) = self.0.lock().expect("no panic").pop() {
                return Err(fault);
            }
            let reply: Box<dyn std::any::Any> =
                Box::new(Err::<_, Refusal>(Refusal::Unproven) as <Confirm as Remote>::Reply);
            Ok(*reply.downcast().expect("only confirmations are asked"))
        }
    }

    async fn check(faults: &[Fault], within: Duration, want: &str) {
        let faults = faults.iter().rev().cloned().collect();
        let node = NodeId::new("us", "n1").expect("valid");
        let message = Confirm { hold: "concert/us/n1/a/1".parse().expect("a hold id") };
        let answer = ask_until_known(&Faulty(Mutex::new(faults)), &node, &message, within).await;
        let told = match answer {
            Ok(_) => "answered".to_owned(),
            Err(fault) => format!("{} {}", fault_code(&fault.kind), fault.delivery()),
        };
        assert_eq!(told, want);
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_answer_or_a_sure_failure_ends_the_asking() {
        let lost = Fault::unknown(FaultKind::Deadline("waiting".into()));
        let unsent = Fault::not_sent(FaultKind::Draining);
        let long = Duration::from_secs(10);
        check(&[], long, "answered").await;
        check(std::slice::from_ref(&unsent), long, "draining not sent").await;
        check(&[lost.clone(), unsent.clone()], long, "answered").await;
        let never: Vec<_> = std::iter::repeat_n(unsent.clone(), 1_000).collect();
        let mut lost_then_never = vec![lost];
        lost_then_never.extend(never);
        check(&lost_then_never, long, "draining unknown").await;
    }
}
