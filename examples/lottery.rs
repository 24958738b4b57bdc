//! An actor that moves: of a lottery there is one in the mesh, and it goes on elsewhere when its node is lost. Here three nodes are
//! in one process, and the story says when one is lost and when it is back; between real nodes with ranges they find that
//! themselves.

use std::time::Duration;

use anyhow::Context as _;
use rhumb::prelude::*;
use rhumb::testing::TestMesh;

const REGIONS: [&str; 3] = ["us-east", "eu-west", "ap-south"];

/// Draws, wherever the lottery is: says where, and under which epoch.
#[remote(name = "example.Draw", class = "control", reply = (String, u64), idempotent)]
struct Draw;

/// What it keeps in memory does not move: a real one has its draws in a keyspace, under its epoch.
struct Lottery {
    region: String,
    epoch: u64,
}

#[remote_actor(name = "example.lottery", class = "control", accepts(Draw))]
impl Actor for Lottery {
    type Context = Context<Self>;
}

impl Handler<Draw> for Lottery {
    type Result = Reply<(String, u64)>;

    fn handle(&mut self, _: Draw, _: &mut Context<Self>) -> Self::Result {
        Reply::ready((self.region.clone(), self.epoch))
    }
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

/// Draws once. Who says `retried` waits for whoever acts next.
async fn drawn(lottery: &MeshAddr<Lottery>) -> anyhow::Result<String> {
    let (region, epoch) = lottery.ask(Draw).within(Duration::from_secs(30)).retried().await?;
    Ok(format!("drawn in {region} under epoch {epoch}"))
}

/// What a player sees while the lottery's node is lost and comes back.
async fn story() -> anyhow::Result<Vec<String>> {
    let host =
        Host::new(|at: &Activation| Lottery { region: at.mesh.region().to_string(), epoch: at.epoch.0 });
    let mesh = TestMesh::of(REGIONS).host(host.moves()).moving().start().await?;
    // Each node reads each second who acts for whom.
    seconds(2).await;
    let first = mesh.at(REGIONS[0]).singleton::<Lottery>().owner().await?.region.to_string();
    let players = REGIONS.into_iter().find(|region| *region != first);
    let lottery = mesh.at(players.context("there are three")?).singleton::<Lottery>();
    let mut told = vec![drawn(&lottery).await?];

    // Its node stands still. The others fence it: until it has surely stopped, nobody acts.
    mesh.freeze(&first);
    mesh.fence(&first);
    seconds(2).await;
    if let Err(fault) = lottery.ask(Draw).await {
        told.push(format!("{first} is lost: {fault}"));
    }
    seconds(3).await;
    mesh.replace(&first);
    told.push(drawn(&lottery).await?);

    // The first one goes on, and may not act: who asks beside it is led to who does.
    mesh.thaw(&first);
    for other in REGIONS.into_iter().filter(|region| *region != first) {
        mesh.reachable(&first, other).await;
    }
    seconds(2).await;
    let beside = lottery.on(mesh.at(&first));
    told.push(format!("{first} is back: {}", drawn(&beside).await?));

    // Then it acts again, as it came: through a while in which nobody does.
    mesh.fence(&first);
    seconds(5).await;
    mesh.restore(&first);
    told.push(drawn(&beside).await?);
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
    fn it_is_drawn_elsewhere_under_a_higher_epoch_and_then_at_home_again() {
        let told = rhumb::testing::run(story()).expect("the story runs");
        let epochs =
            ["under epoch 1", "(outcome: not sent)", "under epoch 3", "under epoch 3", "under epoch 5"];
        assert_eq!(told.len(), epochs.len(), "{told:?}");
        for (line, end) in told.iter().zip(epochs) {
            assert!(line.ends_with(end), "{told:?}");
        }
        let home = told[0].split_whitespace().nth(2).expect("a region");
        assert!(!told[2].contains(home) && told[4].contains(home), "{told:?}");
    }
}
