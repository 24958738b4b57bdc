//! Takes identity folders to the machines where they are used.
//!
//! * It decides: nothing but how long a program of the operator's may take, and that one machine which cannot be
//!   reached keeps nothing from the others.
//! * It never does: reach a machine by itself, or remember what arrived. Whatever failed is delivered again by
//!   the next command that delivers.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;

use super::{Fleet, Member};
use crate::authority::AuthorityFolder;

/// How long a program may take for one folder.
const WITHIN: Duration = Duration::from_secs(120);
/// How often it is looked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A program that takes a folder to where it is used: called with the holder (`node eu-central/n1`) and the
/// folder.
#[derive(Debug, Clone, Default)]
pub struct Delivery(pub Option<PathBuf>);

/// Somebody who has not got what was made for him.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missed {
    /// Who.
    pub holder: String,
    /// Why.
    pub why: String,
}

impl Missed {
    /// This member, over this.
    #[must_use]
    pub fn of(member: &Member, why: &anyhow::Error) -> Self {
        Self { holder: member.holder(), why: format!("{why:#}") }
    }
}

/// Those who have not got it, a line each; nothing where all have.
#[must_use]
pub fn told(missed: &[Missed]) -> String {
    missed.iter().map(|Missed { holder, why }| format!("\n{holder} has not got it: {why}")).collect()
}

impl Delivery {
    /// Takes a folder there. Without a program it is there already. It blocks until the program has ended.
    ///
    /// # Errors
    /// The program did not start, failed, or took longer than two minutes.
    pub fn deliver(&self, holder: &str, folder: &Path) -> anyhow::Result<()> {
        let Some(program) = &self.0 else { return Ok(()) };
        let mut command = Command::new(program);
        // Standard output is the command's answer alone.
        command.arg(holder).arg(folder).stdin(Stdio::null()).stdout(std::io::stderr());
        // What it starts itself is ended with it.
        command.process_group(0);
        let started = command.spawn();
        let mut started = started.with_context(|| format!("{} does not start", program.display()))?;
        let ended = end_of(&mut started, WITHIN)?;
        let what = || format!("{} did not take {} to {holder}", program.display(), folder.display());
        let ended = ended.with_context(|| format!("{}: it had not ended after {WITHIN:?}", what()))?;
        anyhow::ensure!(ended.success(), "{}: {ended}", what());
        Ok(())
    }
}

/// Waits for the end of a program that leads a process group; none where it did not end in time, and was killed with
/// all of that group.
#[expect(
    clippy::disallowed_methods,
    reason = "a program ends when it does: it is looked at until a deadline"
)]
fn end_of(program: &mut Child, within: Duration) -> std::io::Result<Option<ExitStatus>> {
    let until = std::time::Instant::now() + within;
    while std::time::Instant::now() < until {
        if let Some(ended) = program.try_wait()? {
            return Ok(Some(ended));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    // It is not waited for yet: the number is still its own.
    kill_process_group(Pid::from_child(program), Signal::KILL)?;
    program.wait()?;
    Ok(None)
}

impl Fleet {
    /// Puts what is to be believed, and what was revoked, into everybody's folder, and takes them to where they
    /// are used. Gives those who have not got it: nobody waits for them.
    #[must_use]
    pub fn give_out_all(&self, authority: AuthorityFolder) -> Vec<Missed> {
        let mut missed = Vec::new();
        let mut given = Vec::new();
        for member in self.members() {
            match authority.give_out(&member.folder) {
                Ok(()) => given.push(member),
                Err(fault) => missed.push(Missed::of(member, &fault.into())),
            }
        }
        drop(authority);
        missed.extend(self.deliver_all(given));
        missed
    }

    /// Takes these folders to where they are used. Gives those of whom one was not: nobody waits for them.
    #[must_use]
    pub fn deliver_all<'a>(&self, members: impl IntoIterator<Item = &'a Member>) -> Vec<Missed> {
        let each = members.into_iter();
        each.filter_map(|member| self.deliver(member).err().map(|why| Missed::of(member, &why))).collect()
    }

    /// Takes a member's folder to where it is used.
    ///
    /// # Errors
    /// [`Delivery::deliver`].
    pub fn deliver(&self, member: &Member) -> anyhow::Result<()> {
        if self.delivery.0.is_none() {
            return Ok(());
        }
        self.delivery.deliver(&member.certificate()?.holder.to_string(), &member.folder)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_ended_with_all_that_it_has_started() {
        let start = |script: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-c", script]).stdout(Stdio::piped()).process_group(0);
            shell.spawn().expect("started")
        };
        let mut endless = start("sleep 1000 & echo started; wait");
        let mut said = BufReader::new(endless.stdout.take().expect("piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("readable");
        assert_eq!(line, "started\n");
        assert_eq!(end_of(&mut endless, Duration::from_millis(20)).expect("known"), None);
        assert!(endless.try_wait().expect("known").is_some(), "it runs no more");
        // Whoever still ran would hold the other end open.
        let (ended, end) = sync_channel(1);
        std::thread::spawn(move || ended.send(said.read_line(&mut line).is_ok()));
        assert_eq!(end.recv_timeout(Duration::from_secs(20)), Ok(true), "nor what it has started");
        let mut short = start("exit 1");
        let ended = end_of(&mut short, WITHIN).expect("known").expect("in time");
        assert_eq!(ended.code(), Some(1));
    }
}
