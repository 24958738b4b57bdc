//! How to test one's own actor under a partition: several regions inside one test, whose links are cut,
//! whose nodes freeze, and whose time the test drives. `cargo test` runs it; so does this program.

use std::time::Duration;

use rhumb::prelude::*;
use rhumb::testing::TestMesh;

/// Counts one more, where the counter lives.
#[remote(name = "example.Count", class = "control", reply = u64, idempotent)]
struct Count;

#[derive(Default)]
struct Counter(u64);

#[remote_actor(name = "example.counter", class = "control", accepts(Count))]
impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Count> for Counter {
    type Result = u64;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// What a customer of us-east sees of a counter in eu-west while the link between them is cut.
async fn story() -> anyhow::Result<Vec<String>> {
    let mesh = TestMesh::of(["us-east", "eu-west"]).host(Host::new(|_| Counter::default())).start().await?;
    mesh.delay("us-east", "eu-west", Duration::from_millis(40));
    let counter = mesh.at("us-east").actor_in::<Counter>(&"eu-west".parse()?, "visits");
    let mut told = vec![format!("counted {}", counter.ask(Count).await?)];

    mesh.cut("us-east", "eu-west");
    let began = tokio::time::Instant::now();
    if let Err(fault) = counter.ask(Count).await {
        let late = began.elapsed() > Duration::from_secs(2);
        told.push(format!("cut: {} (within 2 s: {})", fault.delivery(), !late));
    }
    if let Err(fault) = counter.ask(Count).await {
        told.push(format!("still cut: {}", fault.delivery()));
    }

    mesh.heal("us-east", "eu-west");
    mesh.reachable("us-east", "eu-west").await;
    told.push(format!("healed: counted {}", counter.ask(Count).await?));
    Ok(told)
}

fn main() -> anyhow::Result<()> {
    for line in rhumb::testing::run(story())? {
        println!("{line}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_a_typed_fault_in_time_and_the_count_goes_on_after_it() {
        let told = rhumb::testing::run(story()).expect("the story runs");
        assert_eq!(
            told,
            ["counted 1", "cut: unknown (within 2 s: true)", "still cut: not sent", "healed: counted 2"]
        );
    }
}
