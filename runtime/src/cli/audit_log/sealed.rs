//! Where an export goes: to files as they are, or encrypted into one.
//!
//! * It decides: the encryption is age's (age-encryption.org/v1), to X25519 recipients; a folder becomes a tar archive first.
//! * It never does: write what is to be encrypted to a disk in any other form, or leave half an archive under its name.
//! * Invariant: under the name of an encrypted export stands nothing, or all of it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use age::stream::StreamWriter;
use age::x25519::Recipient;
use tempfile::NamedTempFile;

use super::super::output::Failure;

/// What an age recipient of this kind begins with.
const AGE: &str = "age1";

/// Who can open an export.
pub(super) struct Recipients(Vec<Recipient>);

impl Recipients {
    /// Those that are named: each a recipient, or a file with one a line.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub(super) fn of(named: &[String]) -> Result<Self, Failure> {
        let mut all = Vec::new();
        for named in named {
            if named.starts_with(AGE) {
                all.push(recipient(named).map_err(Failure::Usage)?);
                continue;
            }
            if named.starts_with("AGE-SECRET-KEY-") {
                let why = "that is a secret key, and it stands in this shell's history now; expected the public one";
                return Err(Failure::Usage(format!("{why}, age1…")));
            }
            let in_file = |why: String| Failure::Usage(format!("{named}: {why}"));
            let text = fs::read_to_string(named).map_err(|error| {
                in_file(format!("{error}; expected a recipient age1…, or a file with one a line"))
            })?;
            let lines = text.lines().map(str::trim).zip(1..);
            let lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
            let before = all.len();
            for (line, number) in lines {
                let one = recipient(line).map_err(|why| in_file(format!("line {number}: {why}")));
                all.push(one?);
            }
            if all.len() == before {
                return Err(in_file("it names no recipient; expected age1…, one a line".to_owned()));
            }
        }
        Ok(Self(all))
    }
}

fn recipient(text: &str) -> Result<Recipient, String> {
    text.parse().map_err(|why: &str| {
        let shown: String = text.chars().take(20).collect();
        format!(
            "{shown:?} is no recipient ({why}); expected an X25519 one of age: age1 and 58 letters and digits"
        )
    })
}

/// An archive that is being encrypted, under another name until it is whole.
pub(super) struct Sealed {
    out: PathBuf,
    writer: StreamWriter<BufWriter<NamedTempFile>>,
}

impl Sealed {
    fn begin(out: &Path, recipients: &Recipients) -> io::Result<Self> {
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        // Readable by its owner alone, and gone when this is dropped.
        let file = tempfile::Builder::new().prefix(".rhumb-export-").tempfile_in(folder)?;
        let each = recipients.0.iter().map(|one| one as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(each).map_err(io::Error::other)?;
        Ok(Self { out: out.to_owned(), writer: encryptor.wrap_output(BufWriter::new(file))? })
    }

    fn finish(self) -> io::Result<()> {
        let file = self.writer.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        let folder = file.path().parent().map(Path::to_owned);
        file.persist_noclobber(&self.out).map_err(|refused| refused.error)?;
        folder.map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

impl Write for Sealed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Where an export goes.
pub(super) enum Target {
    /// A file, or the files of a folder.
    Plain(PathBuf),
    /// An encrypted file.
    File(Box<Sealed>),
    /// An encrypted archive of a folder's files.
    Folder(Box<tar::Builder<Sealed>>),
}

impl Target {
    /// A file or folder of this name, or one file of this name that these recipients alone can open.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn begin(out: &Path, folder: bool, to: Option<&Recipients>) -> Result<Self, Failure> {
        let Some(to) = to else {
            if folder {
                fs::create_dir_all(out).map_err(|error| failed(out, &error))?;
            }
            return Ok(Self::Plain(out.to_owned()));
        };
        let sealed = Sealed::begin(out, to).map_err(|error| failed(out, &error))?;
        Ok(match folder {
            true => Self::Folder(Box::new(tar::Builder::new(sealed))),
            false => Self::File(Box::new(sealed)),
        })
    }

    /// A file of the folder; the file itself where the name is empty.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn put(&mut self, name: &str, bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
        let bytes = bytes.as_ref();
        match self {
            Self::Plain(out) => plain(&if name.is_empty() { out.clone() } else { out.join(name) }, bytes),
            Self::File(sealed) => sealed.write_all(bytes).map_err(|error| failed(&sealed.out, &error)),
            Self::Folder(archive) => {
                let mut header = tar::Header::new_ustar();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o600);
                header.set_uid(0);
                header.set_gid(0);
                header.set_mtime(0);
                let appended = archive.append_data(&mut header, name, bytes);
                appended.map_err(|error| failed(Path::new(name), &error))
            }
        }
    }

    /// All of it is there: it stands under its name from now on.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let sealed = match self {
            Self::Plain(_) => return Ok(()),
            Self::File(sealed) => *sealed,
            Self::Folder(archive) => archive.into_inner().map_err(Failure::local)?,
        };
        let out = sealed.out.clone();
        sealed.finish().map_err(|error| failed(&out, &error))
    }
}

fn plain(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| failed(path, &error))?;
    }
    fs::write(path, bytes).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::local(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use age::x25519::Identity;

    use super::*;

    const SAID: &str = "the record of ann";

    fn recipients(named: &[&str]) -> Result<Recipients, String> {
        let named: Vec<String> = named.iter().map(ToString::to_string).collect();
        Recipients::of(&named).map_err(|why| why.message())
    }

    /// The names in a folder.
    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        names.map(|name| name.into_string().expect("text")).collect()
    }

    #[test]
    fn what_is_encrypted_is_opened_by_its_recipients_alone() {
        let (folder, ours, theirs, other) = (
            tempfile::tempdir().expect("a folder"),
            Identity::generate(),
            Identity::generate(),
            Identity::generate(),
        );
        let list = folder.path().join("auditors");
        fs::write(&list, format!("# the auditors\n\n{}\n", theirs.to_public())).expect("written");
        let to = [ours.to_public().to_string(), list.to_str().expect("text").to_owned()];
        let to = recipients(&[&to[0], &to[1]]).expect("recipients");
        let out = folder.path().join("log.csv.age");
        let mut target = Target::begin(&out, false, Some(&to)).expect("begun");
        target.put("", SAID).expect("written");
        assert!(!out.exists(), "half of it is not there");
        target.finish().expect("finished");
        let bytes = fs::read(&out).expect("there");
        assert!(!bytes.windows(SAID.len()).any(|part| part == SAID.as_bytes()));
        for identity in [&ours, &theirs] {
            assert_eq!(age::decrypt(identity, &bytes).expect("it is for them"), SAID.as_bytes());
        }
        age::decrypt(&other, &bytes).expect_err("it is not for others");
        let mut changed = bytes.clone();
        *changed.last_mut().expect("bytes") ^= 1;
        age::decrypt(&ours, &changed).expect_err("a changed one is not opened");
    }

    #[test]
    fn a_folder_becomes_an_archive() {
        let (folder, ours) = (tempfile::tempdir().expect("a folder"), Identity::generate());
        let out = folder.path().join("log.tar.age");
        let to = recipients(&[&ours.to_public().to_string()]).expect("a recipient");
        let mut target = Target::begin(&out, true, Some(&to)).expect("begun");
        let files = [("checkpoint", "a note"), ("tile/entries/x001/x234/067.p/8", SAID)];
        for (name, bytes) in files {
            target.put(name, bytes).expect("written");
        }
        target.finish().expect("finished");
        let archive = age::decrypt(&ours, &fs::read(&out).expect("there")).expect("opened");
        let mut read = BTreeMap::new();
        for entry in tar::Archive::new(&archive[..]).entries().expect("an archive") {
            let mut entry = entry.expect("a file");
            let (mut text, path) = (String::new(), entry.path().expect("a name").display().to_string());
            entry.read_to_string(&mut text).expect("text");
            read.insert(path, text);
        }
        assert_eq!(read, files.map(|(name, bytes)| (name.to_owned(), bytes.to_owned())).into());
    }

    #[test]
    fn what_is_not_finished_leaves_nothing_and_what_is_there_stays() {
        let (folder, ours) = (tempfile::tempdir().expect("a folder"), Identity::generate());
        let out = folder.path().join("log.csv.age");
        let to = recipients(&[&ours.to_public().to_string()]).expect("a recipient");
        let mut target = Target::begin(&out, false, Some(&to)).expect("begun");
        target.put("", SAID).expect("written");
        drop(target);
        assert_eq!(names(folder.path()), Vec::<String>::new());
        let target = Target::begin(&out, false, Some(&to)).expect("begun");
        fs::write(&out, "somebody else's").expect("written");
        assert!(target.finish().is_err());
        assert_eq!(fs::read_to_string(&out).expect("there"), "somebody else's");
        assert_eq!(names(folder.path()), ["log.csv.age"]);
    }

    #[test]
    fn what_is_no_recipient_is_refused_with_what_would_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("written");
            path.to_str().expect("text").to_owned()
        };
        let ssh = file("ssh", "# ours\nssh-ed25519 AAAA ann@example\n");
        let empty = file("empty", "# nobody\n");
        let plugin = "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t";
        for (named, why) in [
            ("age1wrong", "is no recipient"),
            (plugin, "is no recipient"),
            (ssh.as_str(), "line 2: \"ssh-ed25519 AAAA ann\" is no recipient"),
            (empty.as_str(), "names no recipient"),
            ("no-such-file", "expected a recipient age1…, or a file"),
            ("AGE-SECRET-KEY-1QQ", "that is a secret key"),
        ] {
            let said = recipients(&[named]).err().expect(named);
            assert!(said.contains(why) && said.contains("age1"), "{said}");
        }
    }
}
