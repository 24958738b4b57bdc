use rhumb::prelude::*;
use rhumb::testing::TestMesh;

#[remote(name = "hello.Greet", class = "control", reply = String)]
struct Greet {
    whom: String,
}

struct Greeter(Region);

#[remote_actor(name = "hello.greeter", class = "control", accepts(Greet))]
impl Actor for Greeter {
    type Context = Context<Self>;
}

impl Handler<Greet> for Greeter {
    type Result = String;
    fn handle(&mut self, greet: Greet, _: &mut Context<Self>) -> String {
        format!("hello {}, says {}", greet.whom, self.0)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let greeters = Host::new(|at: &Activation| Greeter(at.mesh.region().clone()));
    let mesh = TestMesh::of(["us-east", "eu-west"]).host(greeters).start().await?;
    let greeter = mesh.at("us-east").actor_in::<Greeter>(&"eu-west".parse()?, "front-desk");
    println!("{}", greeter.ask(Greet { whom: "world".into() }).await?);
    Ok(())
}
