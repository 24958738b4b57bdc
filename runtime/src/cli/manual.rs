//! `rhumb completions` and `rhumb man`: what a shell and a reader of manuals need, made from the same
//! declarations as `--help`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use serde::Serialize;

use super::Cli;
use super::output::{Done, Failure, Output};

/// Print what lets a shell complete the command line.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb completions bash > /etc/bash_completion.d/rhumb\n  rhumb completions zsh > /usr/local/share/zsh/site-functions/_rhumb\n  rhumb completions fish > ~/.config/fish/completions/rhumb.fish"
)]
pub struct Completions {
    /// Which shell.
    shell: Shell,
}

#[derive(Debug, Serialize)]
struct CompletionsAnswer {
    shell: String,
    script: String,
}

impl Completions {
    pub(super) fn run(self, output: &Output) -> Result<Done, Failure> {
        let script = script(self.shell);
        let text = script.trim_end().to_owned();
        output.answer(&CompletionsAnswer { shell: self.shell.to_string(), script }, text);
        Ok(Done::Well)
    }
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rhumb", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Write the manual: a page for each command.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb man --out /usr/local/share/man/man1 && man rhumb-pool-create")]
pub struct Manual {
    /// The folder for the pages; it is made if it is not there. Pages of the same name are written anew.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, Serialize)]
struct ManualAnswer {
    dir: PathBuf,
    pages: Vec<String>,
}

impl Manual {
    pub(super) fn run(self, output: &Output) -> Result<Done, Failure> {
        let pages = write(&self.out)?;
        let text = format!("{} pages in {}", pages.len(), self.out.display());
        output.answer(&ManualAnswer { dir: self.out, pages }, text);
        Ok(Done::Well)
    }
}

/// Writes every page, and gives their names.
fn write(dir: &Path) -> anyhow::Result<Vec<String>> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut names = Vec::new();
    for (name, page) in pages()? {
        let path = dir.join(&name);
        fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
        names.push(name);
    }
    Ok(names)
}

/// The pages by name, the program's own first.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = Cli::command();
    // Fills in what commands inherit, and the names under which they are called.
    command.build();
    let mut pages = Vec::new();
    collect(&command, "rhumb", &mut pages)?;
    Ok(pages)
}

fn collect(command: &Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let (mut page, version) = (Vec::new(), env!("CARGO_PKG_VERSION"));
    let titled = command.clone().display_name(name);
    Man::new(titled).source(format!("rhumb {version}")).manual("Rhumb").render(&mut page)?;
    pages.push((format!("{name}.1"), page));
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        collect(sub, &format!("{name}-{}", sub.get_name()), pages)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command as Process, Stdio};

    use super::*;

    fn names(command: &Command, name: &str) -> Vec<String> {
        let subs = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        let below = subs.flat_map(|sub| names(sub, &format!("{name}-{}", sub.get_name())));
        std::iter::once(format!("{name}.1")).chain(below).collect()
    }

    #[test]
    fn every_command_has_a_page_that_says_how_it_is_called() {
        let folder = tempfile::tempdir().expect("a folder");
        let written = write(&folder.path().join("man1")).expect("written");
        let want = names(&Cli::command(), "rhumb");
        assert!(want.contains(&"rhumb-pool-create.1".to_owned()), "{want:?}");
        assert_eq!(written, want);
        for (name, page) in pages().expect("made") {
            let page = String::from_utf8(page).expect("text");
            assert!(page.contains(".TH ") && page.contains(".SH SYNOPSIS"), "{name}\n{page}");
            assert_eq!(fs::read_to_string(folder.path().join("man1").join(name)).expect("there"), page);
        }
    }

    #[test]
    fn bash_takes_its_completions() {
        let check = Process::new("bash").arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut check = check.expect("bash is there");
        let script = script(Shell::Bash);
        check.stdin.take().expect("piped").write_all(script.as_bytes()).expect("it reads");
        let done = check.wait_with_output().expect("it ends");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        for word in ["doctor", "pool", "--supply", "completions"] {
            assert!(script.contains(word), "{word}");
        }
    }

    #[test]
    fn every_shell_that_is_offered_gets_a_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            assert!(script(shell).contains("attest"), "{shell}");
        }
    }
}
