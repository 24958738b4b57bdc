//! The generations of an identity folder, behind one link that is changed in one step.
//!
//! ```text
//! generations/7/identity.pem ca.pem crl.pem     one certificate with what came with it
//! current -> generations/7                      the one in force
//! identity.pem -> current/identity.pem          and the others likewise
//! ```
//!
//! * It decides: which generation is in force, how many are kept, and in which order all of it is written.
//! * It never does: judge a certificate; or change what is in force before all of the new is on the disk.
//! * Invariants: who reads `identity.pem` finds a whole one at every moment, also after a crash. A folder
//!   without generations is read as it is, and becomes the first generation when something is added to it.
//!   A file that somebody puts at the top in place of its link counts, and is kept as a generation too. What root
//!   adds belongs to whom the certificate before belonged: the node's own user goes on reading it.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::identity::{CA_FILE, CRL_FILE, IDENTITY_FILE};
use crate::secrets::{self, Owner, Secret, SecretError};

/// The link to the generation in force.
pub const CURRENT: &str = "current";
/// The folder of all of them.
pub const GENERATIONS: &str = "generations";
/// Generations that are kept: the one in force and those before it.
pub const KEPT: usize = 5;

/// Why a generation is not in force any more.
const WHY_FILE: &str = "rolled-back.txt";
/// The files that a generation may have. The first is secret.
const FILES: [&str; 3] = [IDENTITY_FILE, CA_FILE, CRL_FILE];

/// What a generation consists of.
#[derive(Debug, Clone)]
pub struct Content {
    /// The certificate chain and its key.
    pub identity: Secret,
    /// The authorities.
    pub authorities: Vec<u8>,
    /// What these have revoked; none where nobody ever said.
    pub revocations: Option<Vec<u8>>,
}

impl Content {
    /// What lies in a folder, with generations or without.
    fn at_the_top(folder: &Path) -> Result<Self, SecretError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).map_err(|e| failed(&path, e))
        };
        let revocations = match read(CRL_FILE) {
            Err(SecretError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            read => Some(read?),
        };
        Ok(Self { identity: Secret::new(read(IDENTITY_FILE)?), authorities: read(CA_FILE)?, revocations })
    }

    fn write(&self, folder: &Path) -> Result<(), SecretError> {
        secrets::replace(&folder.join(IDENTITY_FILE), &self.identity)?;
        secrets::publish(&folder.join(CA_FILE), &self.authorities)?;
        self.revocations.as_ref().map_or(Ok(()), |list| secrets::publish(&folder.join(CRL_FILE), list))
    }
}

/// The generations of one folder.
#[derive(Debug, Clone)]
pub struct Generations {
    folder: PathBuf,
}

impl Generations {
    /// Those of this folder, which need not have any.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The number of the one in force; none in a folder without generations.
    #[must_use]
    pub fn current(&self) -> Option<u64> {
        let target = fs::read_link(self.folder.join(CURRENT)).ok()?;
        number_of(target.strip_prefix(GENERATIONS).ok()?)
    }

    /// The folder of a generation.
    #[must_use]
    pub fn path(&self, number: u64) -> PathBuf {
        self.folder.join(GENERATIONS).join(number.to_string())
    }

    /// All that are kept, the oldest first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn all(&self) -> Result<Vec<u64>, SecretError> {
        let at = self.folder.join(GENERATIONS);
        let entries = match fs::read_dir(&at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| failed(&at, e))?,
        };
        let names = entries.map(|entry| Ok(number_of(Path::new(&entry?.file_name()))));
        let numbers: io::Result<Vec<Option<u64>>> = names.collect();
        let mut numbers: Vec<u64> = numbers.map_err(|e| failed(&at, e))?.into_iter().flatten().collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The one before that in force, if it is kept. One that was gone back from is passed over.
    ///
    /// # Errors
    /// As for [`Generations::all`].
    pub fn before(&self) -> Result<Option<u64>, SecretError> {
        let Some(current) = self.current() else { return Ok(None) };
        Ok(self.all()?.into_iter().rfind(|number| *number < current && self.why_not(*number).is_none()))
    }

    /// Writes a generation, and puts it in force when all of it is on the disk. Gives its number.
    ///
    /// # Errors
    /// [`SecretError::File`]; what was in force still is.
    pub fn add(&self, content: &Content) -> Result<u64, SecretError> {
        self.adopt()?;
        let number = self.write(content)?;
        self.put_in_force(number)?;
        self.prune()?;
        Ok(number)
    }

    /// Puts a kept generation in force.
    ///
    /// # Errors
    /// [`SecretError::File`]; what was in force still is.
    pub fn put_in_force(&self, number: u64) -> Result<(), SecretError> {
        self.link(Path::new(CURRENT), &Path::new(GENERATIONS).join(number.to_string()))?;
        for name in FILES {
            self.link(Path::new(name), &Path::new(CURRENT).join(name))?;
        }
        sync(&self.folder)
    }

    /// Replaces a public file in every kept generation, or in a folder without generations at its top:
    /// what all of them believe has changed. The one in force is the first.
    ///
    /// # Errors
    /// [`SecretError::File`].
    pub fn publish(&self, name: &'static str, bytes: &[u8]) -> Result<(), SecretError> {
        let top = self.folder.join(name);
        if !self.is_linked(name) {
            secrets::publish(&top, bytes)?;
        }
        let Some(current) = self.current() else { return Ok(()) };
        let others = self.all()?.into_iter().filter(|number| *number != current);
        for number in [current].into_iter().chain(others) {
            secrets::publish(&self.path(number).join(name), bytes)?;
        }
        Ok(())
    }

    /// Leaves a note why a generation is not in force any more.
    ///
    /// # Errors
    /// [`SecretError::File`].
    pub fn note(&self, number: u64, why: &str) -> Result<(), SecretError> {
        secrets::publish(&self.path(number).join(WHY_FILE), format!("{}\n", why.trim_end()).as_bytes())
    }

    /// The note that was left, if one was.
    #[must_use]
    pub fn why_not(&self, number: u64) -> Option<String> {
        let why = fs::read_to_string(self.path(number).join(WHY_FILE)).ok()?;
        Some(why.trim_end().to_owned())
    }

    /// Keeps what lies at the top of the folder, and not behind links, as a generation.
    fn adopt(&self) -> Result<(), SecretError> {
        let current = self.folder.join(CURRENT);
        if current.is_dir() && !current.is_symlink() {
            let why = "it is a folder and no link: this folder was copied by something that follows links; remove \
                       `current` and `generations`, what lies beside them counts";
            return Err(failed(&current, io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        if !FILES.iter().any(|name| self.lies_at_the_top(name)) || !self.folder.join(IDENTITY_FILE).exists() {
            return Ok(());
        }
        let number = self.write(&Content::at_the_top(&self.folder)?)?;
        self.put_in_force(number)
    }

    fn write(&self, content: &Content) -> Result<u64, SecretError> {
        let number = self.all()?.last().map_or(1, |last| last + 1);
        let (to, all) = (self.path(number), self.folder.join(GENERATIONS));
        let fresh = all.join(format!("{number}.new"));
        if fresh.exists() {
            fs::remove_dir_all(&fresh).map_err(|e| failed(&fresh, e))?;
        }
        let is_first = !all.exists();
        fs::create_dir_all(&fresh).map_err(|e| failed(&fresh, e))?;
        content.write(&fresh)?;
        if let Some(owner) = Owner::to_keep(&self.folder.join(IDENTITY_FILE)) {
            let folders = is_first.then_some(&all).into_iter().chain([&fresh]);
            folders
                .chain(&files_of(&fresh)?)
                .try_for_each(|path| owner.take(path).map_err(|e| failed(path, e)))?;
        }
        sync(&fresh)?;
        fs::rename(&fresh, &to).map_err(|e| failed(&to, e))?;
        sync(&all)?;
        Ok(number)
    }

    /// Forgets the oldest.
    fn prune(&self) -> Result<(), SecretError> {
        let all = self.all()?;
        let current = self.current();
        let old = all.len().saturating_sub(KEPT);
        for number in all.into_iter().take(old).filter(|number| Some(*number) != current) {
            let path = self.path(number);
            fs::remove_dir_all(&path).map_err(|e| failed(&path, e))?;
        }
        Ok(())
    }

    /// Makes a link, or has it point elsewhere, in one step.
    fn link(&self, name: &Path, target: &Path) -> Result<(), SecretError> {
        let path = self.folder.join(name);
        if fs::read_link(&path).is_ok_and(|found| found == target) {
            return Ok(());
        }
        let fresh = self.folder.join(format!("{}.link", name.display()));
        let made = || {
            match fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => symlink(target, &fresh)?,
            }
            fs::rename(&fresh, &path)
        };
        made().map_err(|e| failed(&path, e))
    }

    fn is_linked(&self, name: &str) -> bool {
        fs::read_link(self.folder.join(name)).is_ok_and(|target| target == Path::new(CURRENT).join(name))
    }

    fn lies_at_the_top(&self, name: &str) -> bool {
        !self.is_linked(name) && self.folder.join(name).exists()
    }
}

/// The files of a generation.
fn files_of(generation: &Path) -> Result<Vec<PathBuf>, SecretError> {
    let entries = fs::read_dir(generation).map_err(|e| failed(generation, e))?;
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    paths.map_err(|e| failed(generation, e))
}

/// The number that a generation's folder has as its name.
fn number_of(name: &Path) -> Option<u64> {
    let text = name.to_str()?;
    let number: u64 = text.parse().ok()?;
    (number > 0 && number.to_string() == text).then_some(number)
}

/// A rename is on the disk when its folder is.
fn sync(folder: &Path) -> Result<(), SecretError> {
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| failed(folder, e))
}

fn failed(path: &Path, source: io::Error) -> SecretError {
    SecretError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    fn folder() -> (TempDir, Generations) {
        let folder = tempfile::tempdir().expect("a directory");
        let generations = Generations::of(folder.path());
        (folder, generations)
    }

    fn content(key: &str) -> Content {
        let authorities = format!("ca of {key}").into_bytes();
        Content { identity: Secret::from(key.to_owned()), authorities, revocations: None }
    }

    fn read(folder: &TempDir, name: &str) -> String {
        fs::read_to_string(folder.path().join(name)).expect("readable")
    }

    #[test]
    fn a_flat_folder_becomes_the_first_generation_when_one_is_added() {
        let (folder, generations) = folder();
        content("one").write(folder.path()).expect("written");
        assert_eq!((generations.current(), generations.all().expect("listed")), (None, vec![]));
        assert_eq!(generations.add(&content("two")).expect("added"), 2);
        assert_eq!((read(&folder, "identity.pem").as_str(), generations.current()), ("two", Some(2)));
        assert_eq!(generations.before().expect("listed"), Some(1));
        let old = generations.path(1).join("identity.pem");
        assert_eq!(fs::read_to_string(&old).expect("kept"), "one");
        for number in [1, 2] {
            let file = generations.path(number).join("identity.pem");
            let mode = fs::metadata(file).expect("there").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "generation {number}");
        }
    }

    #[test]
    fn going_back_is_one_link_and_what_came_later_stays() {
        let (folder, generations) = folder();
        for key in ["one", "two", "three"] {
            generations.add(&content(key)).expect("added");
        }
        generations.put_in_force(2).expect("linked");
        assert_eq!(
            (read(&folder, "identity.pem"), read(&folder, "ca.pem")),
            ("two".into(), "ca of two".into())
        );
        assert_eq!(generations.before().expect("listed"), Some(1));
        assert_eq!(generations.add(&content("four")).expect("added"), 4, "a number is never used again");
    }

    #[test]
    fn one_that_was_gone_back_from_is_not_gone_back_to() {
        let (_folder, generations) = folder();
        for key in ["one", "bad"] {
            generations.add(&content(key)).expect("added");
        }
        generations.note(2, "it was bad").expect("noted");
        generations.put_in_force(1).expect("linked");
        generations.add(&content("three")).expect("added");
        assert_eq!(
            (generations.before().expect("listed"), generations.why_not(2)),
            (Some(1), Some("it was bad".into()))
        );
    }

    #[test]
    fn as_many_are_kept_as_may_be_and_the_one_in_force_always() {
        let (_folder, generations) = folder();
        generations.add(&content("first")).expect("added");
        for _ in 0..KEPT + 2 {
            generations.add(&content("next")).expect("added");
        }
        assert_eq!(generations.all().expect("listed"), [4, 5, 6, 7, 8]);
        generations.put_in_force(4).expect("linked");
        generations.write(&content("later")).expect("written");
        generations.prune().expect("pruned");
        assert_eq!(generations.all().expect("listed"), [4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_file_put_in_place_of_its_link_counts_and_is_kept() {
        let (folder, generations) = folder();
        generations.add(&content("one")).expect("added");
        let fresh = folder.path().join("fresh");
        secrets::create(&fresh, &Secret::from("by hand".to_owned())).expect("written");
        fs::rename(fresh, folder.path().join("identity.pem")).expect("renamed");
        assert_eq!(read(&folder, "identity.pem"), "by hand");
        generations.add(&content("three")).expect("added");
        let kept = fs::read_to_string(generations.path(2).join("identity.pem")).expect("kept");
        assert_eq!((kept.as_str(), read(&folder, "identity.pem").as_str()), ("by hand", "three"));
    }

    #[test]
    fn what_a_crash_left_half_written_is_never_in_force() {
        let (folder, generations) = folder();
        generations.add(&content("one")).expect("added");
        // A crash before the rename, and one before the link.
        fs::create_dir_all(folder.path().join("generations/2.new")).expect("made");
        fs::write(folder.path().join("generations/2.new/identity.pem"), "half").expect("written");
        assert_eq!((generations.current(), generations.all().expect("listed")), (Some(1), vec![1]));
        assert_eq!(generations.write(&content("two")).expect("written"), 2);
        assert_eq!(read(&folder, "identity.pem"), "one", "it is not in force yet");
        assert_eq!(generations.add(&content("three")).expect("added"), 3);
        assert_eq!(read(&folder, "identity.pem"), "three");
    }

    #[test]
    fn what_root_adds_is_its_owners_whose_certificate_it_replaces() {
        use std::os::unix::fs::{MetadataExt, lchown};

        let (folder, generations) = folder();
        content("one").write(folder.path()).expect("written");
        let top = folder.path().join("identity.pem");
        let own = fs::metadata(&top).expect("there");
        // Who is not root adds only what is his own.
        let owner = if own.uid() == 0 { (1234, 1234) } else { (own.uid(), own.gid()) };
        lchown(&top, Some(owner.0), Some(owner.1)).expect("given");
        for key in ["two", "three"] {
            generations.add(&content(key)).expect("added");
            let new = generations.path(generations.current().expect("one"));
            for path in [new.join("identity.pem"), new.join("ca.pem"), new, folder.path().join(GENERATIONS)] {
                let found = fs::metadata(&path).expect("there");
                assert_eq!((found.uid(), found.gid()), owner, "{key}: {}", path.display());
            }
        }
    }

    #[test]
    fn what_is_believed_changes_in_all_generations() {
        let (folder, generations) = folder();
        generations.publish("ca.pem", b"flat").expect("published");
        assert_eq!(read(&folder, "ca.pem"), "flat");
        for key in ["one", "two"] {
            generations.add(&content(key)).expect("added");
        }
        generations.publish("ca.pem", b"both").expect("published");
        assert_eq!(read(&folder, "ca.pem"), "both");
        assert!(folder.path().join("ca.pem").is_symlink(), "still behind its link");
        generations.put_in_force(1).expect("linked");
        assert_eq!(read(&folder, "ca.pem"), "both");
    }

    #[test]
    fn a_folder_that_was_copied_through_its_links_is_refused_with_the_way_out() {
        let (folder, generations) = folder();
        fs::create_dir(folder.path().join(CURRENT)).expect("made");
        let refused = generations.add(&content("one")).expect_err("refused").to_string();
        assert!(refused.contains("copied by something that follows links"), "{refused}");
    }
}
