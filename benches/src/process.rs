//! The two sides of a measurement are processes: this program, started again as `bench peer …`. They
//! speak in lines over standard input and output, and end when standard input closes.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// How long a side may take to say something.
const PATIENCE: Duration = Duration::from_secs(60);

/// One side, as a child process.
pub struct Side {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Side {
    /// Starts a side. `arguments` come after `bench peer`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("peer").args(arguments);
        Self::spawn(command)
    }

    /// Starts this command as a side.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let stdin = child.stdin.take().context("its standard input")?;
        let stdout = child.stdout.take().context("its standard output")?;
        Ok(Self { child, stdin, lines: BufReader::new(stdout).lines() })
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The next line that it says.
    ///
    /// # Errors
    /// It has ended, said something else, or says nothing.
    pub async fn said<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        self.said_within(PATIENCE).await
    }

    /// The next line that it says, if it says one in time.
    ///
    /// # Errors
    /// As [`Side::said`].
    pub async fn said_within<T: DeserializeOwned>(&mut self, patience: Duration) -> anyhow::Result<T> {
        let line = timeout(patience, self.lines.next_line()).await.context("it says nothing")??;
        let line = line.context("it has ended")?;
        serde_json::from_str(&line).with_context(|| format!("it said {line:?}"))
    }

    /// Tells it something.
    ///
    /// # Errors
    /// It has ended.
    pub async fn tell(&mut self, what: &impl serde::Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.stdin.write_all(&line).await?;
        Ok(self.stdin.flush().await?)
    }

    /// Ends it: its standard input closes; what does not go then is killed.
    pub async fn end(mut self) {
        drop(self.stdin);
        if timeout(Duration::from_secs(5), self.child.wait()).await.is_err() {
            self.child.kill().await.ok();
        }
    }
}

/// What a side reads from the process that started it.
pub struct Orders(Lines<BufReader<tokio::io::Stdin>>);

impl Default for Orders {
    fn default() -> Self {
        Self(BufReader::new(tokio::io::stdin()).lines())
    }
}

impl Orders {
    /// The next order; none when there will be no more.
    ///
    /// # Errors
    /// It is not one.
    pub async fn next<T: DeserializeOwned>(&mut self) -> anyhow::Result<Option<T>> {
        match self.0.next_line().await? {
            Some(line) => Ok(Some(serde_json::from_str(&line).with_context(|| format!("{line:?}"))?)),
            None => Ok(None),
        }
    }

    /// Waits until there will be no more.
    ///
    /// # Errors
    /// Standard input cannot be read.
    pub async fn until_closed(mut self) -> anyhow::Result<()> {
        while self.0.next_line().await?.is_some() {}
        Ok(())
    }
}

/// Says a line to the process that started this one.
///
/// # Errors
/// Standard output cannot be written.
pub fn say(what: &impl serde::Serialize) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, what)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// What is done to a process that serves, and undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freezing {
    /// It stands still.
    Stop,
    /// It goes on.
    Continue,
}

/// Stops a process of this bench, or lets it go on.
///
/// # Errors
/// There is no such process.
pub fn signal(pid: u32, what: Freezing) -> anyhow::Result<()> {
    let number = match what {
        Freezing::Stop => libc::SIGSTOP,
        Freezing::Continue => libc::SIGCONT,
    };
    let pid = libc::pid_t::try_from(pid)?;
    anyhow::ensure!(pid > 1, "{pid} is no process of this bench");
    // SAFETY: kill takes two numbers, and touches no memory of this process.
    let done = unsafe { libc::kill(pid, number) };
    anyhow::ensure!(done == 0, "{pid}: {}", std::io::Error::last_os_error());
    Ok(())
}
