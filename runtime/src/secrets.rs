//! Secrets, such as a node's key: where they are looked for, and who else could have read them.
//!
//! * It decides: whether a file may be believed to be secret: it belongs to this user or to root, and
//!   nobody else can read it.
//! * It never does: print a secret, leave one in memory that it frees, or overwrite one unasked.
//! * Invariants: a secret file has mode 0600 from its first moment. One that root puts in the place of another's
//!   is that other's, as it was.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

/// The largest secret that is read.
const MAX_BYTES: u64 = 1 << 20;
/// How the names of variables begin that hold secrets.
const PREFIX: &str = "RHUMB_SECRET_";

/// A secret. It is never printed, and wiped from memory when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The secret of these bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a secret is not had.
#[derive(Debug, Error)]
pub enum SecretError {
    /// There is none.
    #[error("there is no secret {name}: looked for {}; {}", .looked.join(" and for "), remedy(name))]
    Missing {
        /// Its name.
        name: String,
        /// Where it was looked for.
        looked: Vec<String>,
    },
    /// Others than its owner can read it.
    #[error(
        "{path} holds a secret and has mode {mode:03o}, so others can read it: run `chmod 600 {path}`, and replace \
         the secret if somebody may have",
        path = path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is somebody else's.
    #[error(
        "{path} holds a secret and belongs to user {owner}: expected {expected} (who runs this) or 0; run \
         `chown {expected} {path}`",
        path = path.display()
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who runs this.
        expected: u32,
    },
    /// Who should send it sent something else.
    #[error("{name}: {why}")]
    NotSent {
        /// Its name.
        name: String,
        /// What came.
        why: String,
    },
    /// It cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How to come by a secret.
fn remedy(name: &str) -> &'static str {
    match name {
        "identity.pem" => "issue one with `rhumb cert issue`",
        "authority.pem" => "make an authority with `rhumb ca init`",
        "operator.key" => "`rhumb mesh init` makes one, or `openssl genpkey -algorithm ed25519`",
        _ => "write it there with mode 600",
    }
}

/// Where secrets are had from, by name.
pub trait Secrets: Send + Sync {
    /// Reads a secret.
    ///
    /// # Errors
    /// [`SecretError`]; [`SecretError::Missing`] where there is none.
    fn read(&self, name: &str) -> Result<Secret, SecretError>;
}

/// Secrets in the files of a folder.
#[derive(Debug, Clone)]
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// The files of this folder.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }
}

impl Secrets for Files {
    fn read(&self, name: &str) -> Result<Secret, SecretError> {
        let path = self.folder.join(name);
        let failed = |source| SecretError::File { path: path.clone(), source };
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let looked = vec![format!("file {}", path.display())];
                return Err(SecretError::Missing { name: name.to_owned(), looked });
            }
            opened => opened.map_err(failed)?,
        };
        // Of the file that is open, not of the one that now has its name.
        let found = file.metadata().map_err(failed)?;
        judge(&path, found.uid(), rustix::process::geteuid().as_raw(), found.mode())?;
        if !found.is_file() || found.len() > MAX_BYTES {
            let why = format!("expected a file of at most {MAX_BYTES} bytes");
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        // As large as it is, so that growing leaves no copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(found.len() as usize + 1));
        (&mut file).take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Secret(bytes))
    }
}

/// Whether a file of this owner and mode may be believed to be secret, by who runs this.
fn judge(path: &Path, owner: u32, us: u32, mode: u32) -> Result<(), SecretError> {
    let path = || path.to_owned();
    match mode & 0o777 {
        mode if mode & 0o077 != 0 => Err(SecretError::Exposed { path: path(), mode }),
        _ if owner != us && owner != 0 => Err(SecretError::Owner { path: path(), owner, expected: us }),
        _ => Ok(()),
    }
}

/// Secrets in environment variables: `identity.pem` in `RHUMB_SECRET_IDENTITY_PEM`.
#[derive(Debug, Clone)]
pub struct Environment {
    variables: Vec<(String, Secret)>,
}

impl Environment {
    /// The variables of this process.
    #[must_use]
    pub fn ours() -> Self {
        Self::of(std::env::vars_os())
    }

    /// These variables; those that are not secrets are left out.
    pub fn of(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        use std::os::unix::ffi::OsStringExt;
        let ours = |(name, value): (OsString, OsString)| {
            let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
            Some((name, Secret::new(value.into_vec())))
        };
        Self { variables: variables.into_iter().filter_map(ours).collect() }
    }

    fn variable(name: &str) -> String {
        let upper =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
        PREFIX.chars().chain(upper).collect()
    }
}

impl Secrets for Environment {
    fn read(&self, name: &str) -> Result<Secret, SecretError> {
        let variable = Self::variable(name);
        let found = self.variables.iter().find(|(known, _)| *known == variable);
        found.map(|(_, secret)| secret.clone()).ok_or_else(|| SecretError::Missing {
            name: name.to_owned(),
            looked: vec![format!("environment variable {variable}")],
        })
    }
}

/// Secrets from the first place that has them.
pub struct FirstOf(Vec<Box<dyn Secrets>>);

impl FirstOf {
    /// This process's environment, then the files of a folder.
    #[must_use]
    pub fn environment_and(folder: &Path) -> Self {
        Self(vec![Box::new(Environment::ours()), Box::new(Files::of(folder))])
    }

    /// These places, in this order.
    #[must_use]
    pub fn places(places: Vec<Box<dyn Secrets>>) -> Self {
        Self(places)
    }
}

impl Secrets for FirstOf {
    fn read(&self, name: &str) -> Result<Secret, SecretError> {
        let mut everywhere = Vec::new();
        for place in &self.0 {
            match place.read(name) {
                Err(SecretError::Missing { looked, .. }) => everywhere.extend(looked),
                found => return found,
            }
        }
        Err(SecretError::Missing { name: name.to_owned(), looked: everywhere })
    }
}

/// Writes a new secret file.
///
/// # Errors
/// [`SecretError::File`], also where there is one already: nothing is overwritten.
pub fn create(path: &Path, secret: &Secret) -> Result<(), SecretError> {
    let failed = |source| SecretError::File { path: path.to_owned(), source };
    write_new(path, secret.bytes(), 0o600).map_err(failed)
}

/// Puts a secret in the place of another, all of it or nothing.
///
/// # Errors
/// [`SecretError::File`].
pub fn replace(path: &Path, secret: &Secret) -> Result<(), SecretError> {
    let failed = |source| SecretError::File { path: path.to_owned(), source };
    swap(path, secret.bytes(), 0o600).map_err(failed)
}

/// Writes a file that anyone may read, all of it or nothing.
///
/// # Errors
/// [`SecretError::File`].
pub fn publish(path: &Path, bytes: &[u8]) -> Result<(), SecretError> {
    let failed = |source| SecretError::File { path: path.to_owned(), source };
    swap(path, bytes, 0o644).map_err(failed)
}

/// Whose a file is: user and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    const ROOT: Self = Self { user: 0, group: 0 };

    /// To whom what takes the place of this file is to be given; nobody where there is none yet, or where who runs
    /// this may not give anything away.
    pub(crate) fn to_keep(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok();
        let found = found.map(|found| Self { user: found.uid(), group: found.gid() });
        Self::kept(found, rustix::process::geteuid().as_raw())
    }

    /// Root gives it back, or its owner could not read it any more.
    fn kept(found: Option<Self>, us: u32) -> Option<Self> {
        found.filter(|found| us == 0 && *found != Self::ROOT)
    }

    /// Gives a file or folder to this owner.
    pub(crate) fn take(self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::lchown(path, Some(self.user), Some(self.group))
    }
}

fn swap(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = Path::new(&fresh);
    match fs::remove_file(fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => write_new(fresh, bytes, mode)?,
    }
    if let Some(owner) = Owner::to_keep(path) {
        owner.take(fresh)?;
        File::open(fresh)?.sync_all()?;
    }
    fs::rename(fresh, path)?;
    // Else a power cut could bring the old one back, a list of revocations among them.
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn variables(all: &[(&str, &str)]) -> Environment {
        Environment::of(all.iter().map(|(name, value)| ((*name).into(), (*value).into())))
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::from("hunter2".to_owned())), "Secret(..)");
        let environment = format!("{:?}", variables(&[("RHUMB_SECRET_X", "hunter2")]));
        assert!(!environment.contains("hunter2"), "{environment}");
    }

    #[test]
    fn a_secret_file_is_nobody_elses_from_its_first_moment() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("operator.key");
        create(&path, &Secret::from("one".to_owned())).expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        let again = create(&path, &Secret::from("two".to_owned()));
        assert!(matches!(again, Err(SecretError::File { .. })), "nothing is overwritten unasked");
        let files = Files::of(folder.path());
        assert_eq!(files.read("operator.key").expect("readable").bytes(), b"one");
        replace(&path, &Secret::from("two".to_owned())).expect("replaced");
        assert_eq!(
            (files.read("operator.key").expect("readable").bytes(), mode(&path)),
            (&b"two"[..], 0o600)
        );
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("identity.pem");
        create(&path, &Secret::from("key".to_owned())).expect("written");
        for mode in [0o640, 0o604, 0o610, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
            let refused = Files::of(folder.path()).read("identity.pem").expect_err("refused").to_string();
            assert!(refused.contains("chmod 600") && refused.contains(&format!("{mode:o}")), "{refused}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("changed");
        Files::of(folder.path()).read("identity.pem").expect("only its owner reads it");
    }

    #[test]
    fn a_secret_file_is_ours_or_roots_and_nobody_else_reads_it() {
        for (owner, us, mode, want) in [
            (1000, 1000, 0o600, "ok"),
            (1000, 1000, 0o400, "ok"),
            (0, 1000, 0o600, "ok"),
            (1001, 1000, 0o600, "owner"),
            (1000, 0, 0o600, "owner"),
            (1000, 1000, 0o640, "exposed"),
            (1000, 1000, 0o601, "exposed"),
            (0, 1000, 0o644, "exposed"),
        ] {
            let judged = match judge(Path::new("key"), owner, us, 0o100_000 | mode) {
                Ok(()) => "ok",
                Err(SecretError::Owner { .. }) => "owner",
                Err(_) => "exposed",
            };
            assert_eq!(judged, want, "{owner} {us} {mode:o}");
        }
    }

    #[test]
    fn what_root_replaces_stays_its_owners() {
        let owner = |user, group| Owner { user, group };
        for (found, us, want) in [
            (Some(owner(1000, 1000)), 0, Some(owner(1000, 1000))),
            (Some(owner(0, 1000)), 0, Some(owner(0, 1000))),
            (Some(owner(0, 0)), 0, None),
            (Some(owner(1000, 1000)), 1000, None),
            (None, 0, None),
        ] {
            assert_eq!(Owner::kept(found, us), want, "{found:?} {us}");
        }
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("identity.pem");
        create(&path, &Secret::from("one".to_owned())).expect("written");
        // Who is not root cannot make it somebody else's, and need not.
        let us = fs::metadata(&path).expect("there").uid();
        let theirs =
            if us == 0 { owner(1234, 1234) } else { owner(us, fs::metadata(&path).expect("there").gid()) };
        theirs.take(&path).expect("given");
        replace(&path, &Secret::from("two".to_owned())).expect("replaced");
        let found = fs::metadata(&path).expect("there");
        assert_eq!(owner(found.uid(), found.gid()), theirs);
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_missing_secret_says_where_it_was_looked_for_and_how_to_make_it() {
        let folder = tempfile::tempdir().expect("a directory");
        let places = FirstOf::places(vec![Box::new(variables(&[])), Box::new(Files::of(folder.path()))]);
        let missing = places.read("identity.pem").expect_err("there is none").to_string();
        let file = folder.path().join("identity.pem").display().to_string();
        for part in ["RHUMB_SECRET_IDENTITY_PEM", &file, "rhumb cert issue"] {
            assert!(missing.contains(part), "{part} in {missing}");
        }
    }

    #[test]
    fn the_environment_comes_before_files_and_a_bad_file_is_no_missing_one() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("operator.key");
        create(&path, &Secret::from("in the file".to_owned())).expect("written");
        let read = |environment: Environment| {
            let places: Vec<Box<dyn Secrets>> =
                vec![Box::new(environment), Box::new(Files::of(folder.path()))];
            FirstOf::places(places).read("operator.key")
        };
        let set = variables(&[("RHUMB_SECRET_OPERATOR_KEY", "in the environment"), ("PATH", "/bin")]);
        assert_eq!(read(set).expect("set").bytes(), b"in the environment");
        assert_eq!(read(variables(&[])).expect("written").bytes(), b"in the file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(matches!(read(variables(&[])), Err(SecretError::Exposed { .. })));
    }
}
