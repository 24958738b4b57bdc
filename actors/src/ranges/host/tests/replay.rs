//! Stories of seeds, and what is left of one that is to be looked at: the history that its clients saw, as lines that any checker reads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use rhumb_histories::{Did, Operation, Outcome, file, linear};

use super::clients::Telling;
use super::sim;
use super::world::Tally;

/// A story that was told.
pub(super) struct Story {
    /// What there was of it, or the first promise that is broken.
    pub(super) ended: Result<Tally, String>,
    /// What its clients saw: all that was checked, or was told until it broke.
    pub(super) history: Vec<Operation>,
}

impl Story {
    /// Runs one whose clients tell this. An assertion of a machine is a broken promise, too.
    pub(super) fn of(story: impl FnOnce(&Telling) -> Result<Tally, String>) -> Self {
        let telling = Telling::default();
        let ended = catch_unwind(AssertUnwindSafe(|| story(&telling))).unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|&words| words.to_owned()));
            Err(words.unwrap_or_default())
        });
        // What is left of it must not be met by the next one.
        sim::begin(0);
        let history = telling.lock().history();
        Self { ended, history }
    }

    /// Writes its history: where it is.
    fn keep(&self, name: &str, seed: u64) -> PathBuf {
        let program = std::env::current_exe().expect("a test is a program");
        let target = program.ancestors().nth(3).expect("it lies in target/debug/deps");
        let folder = target.join("histories");
        std::fs::create_dir_all(&folder).expect("target can be written");
        let kept = folder.join(format!("{name}-{seed}.jsonl"));
        file::write(&kept, &self.history).expect("target can be written");
        kept
    }
}

/// Tells the stories of so many seeds, of all of which there was this. The history of one that goes wrong is kept; so is that of the one
/// that is told alone, of the seed that `RHUMB_NAME_SEED` is: then there is nothing to be said of all.
pub(super) fn all(name: &str, seeds: u64, story: impl Fn(u64) -> Story) -> Option<Tally> {
    let variable = format!("RHUMB_{}_SEED", name.to_uppercase());
    let one = std::env::var(&variable).ok().and_then(|seed| seed.parse().ok());
    if let Some(seed) = one {
        alone(name, seed, &story(seed));
        return None;
    }
    let mut all = Tally::default();
    for seed in 0..seeds {
        let story = story(seed);
        match story.ended {
            Ok(tally) => all.add(tally),
            Err(ref broken) => {
                let kept = story.keep(name, seed).display().to_string();
                panic!("seed {seed}: {broken}\nwhat its clients saw: {kept}\n{variable}={seed} runs it alone")
            }
        }
    }
    Some(all)
}

/// A story is told alone: its history is kept, however it ends.
fn alone(name: &str, seed: u64, story: &Story) {
    let kept = story.keep(name, seed).display().to_string();
    match &story.ended {
        Ok(tally) => println!("{tally:?}\nwhat its clients saw: {kept}"),
        Err(broken) => panic!("seed {seed}: {broken}\nwhat its clients saw: {kept}"),
    }
}

#[test]
fn a_story_that_goes_wrong_leaves_what_its_clients_saw_as_lines() {
    let told = super::story(0);
    assert!(told.ended.is_ok(), "{:?}", told.ended);
    let wrong = |_| Story { ended: Err("as it is said".to_owned()), history: told.history.clone() };
    let kept = |tells: &dyn Fn()| {
        let panic = catch_unwind(AssertUnwindSafe(tells)).expect_err("it is wrong");
        let words = panic.downcast_ref::<String>().expect("words");
        assert!(words.contains("seed 0: as it is said"), "{words}");
        let kept = words.lines().find_map(|line| line.strip_prefix("what its clients saw: "));
        let kept = PathBuf::from(kept.expect("where it is"));
        let read = file::read(&kept).expect("lines");
        assert_eq!(read, told.history, "what was checked is what is in the file");
        std::fs::remove_file(kept).expect("it is there");
        read
    };
    let read = kept(&|| _ = all("purpose", 1, wrong));
    // So does one that is told alone, and that is no less wrong.
    kept(&|| alone("purpose", 0, &wrong(0)));
    assert_eq!(linear::check(&read, Duration::from_secs(600)), Ok(()));
    // There is something of everything in it.
    let has = |what: fn(&Operation) -> bool| assert!(read.iter().any(what));
    has(|one| one.outcome == Outcome::Unknown && one.return_ns.is_none());
    has(|one| one.outcome == Outcome::Fail);
    has(|one| one.batch.is_some() && matches!(one.did, Did::Read(Some(_))));
    has(|one| one.batch.is_some() && matches!(one.did, Did::Cas { .. }));
    has(|one| one.did == Did::Delete && one.outcome == Outcome::Ok);
}
