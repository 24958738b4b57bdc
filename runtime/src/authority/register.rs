//! The lines in which an authority writes down what it has issued and done.
//!
//! * It decides: what stands in them, and that half a line which a crash or a full disk has left spoils no other.
//! * It never does: leave out silently what it cannot read.
//! * Invariant: what was appended is on the disk, the file's own name included, when [`append`] returns.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use rhumb_transport::Certificate;
use rhumb_transport::identity::Serial;
use serde::{Deserialize, Serialize};

use super::{AuthorityFault, ISSUED_FILE, file};

/// A line of [`ISSUED_FILE`]. Times are seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The serial number.
    pub serial: String,
    /// To whom.
    pub holder: String,
    /// Its first second.
    pub not_before: i64,
    /// Its last second.
    pub not_after: i64,
    /// SHA-256 over the certificate.
    pub fingerprint: String,
    /// Which authority issued it; empty in lines of earlier builds.
    #[serde(default)]
    pub issuer: String,
}

impl From<&Certificate> for Issued {
    fn from(certificate: &Certificate) -> Self {
        Self {
            serial: certificate.serial.to_string(),
            holder: certificate.holder.to_string(),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            fingerprint: certificate.fingerprint(),
            issuer: certificate.issuer.clone(),
        }
    }
}

/// What an authority has issued, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Register {
    /// The lines.
    pub all: Vec<Issued>,
    /// What is wrong with lines that cannot be read. One that was cut off was never handed out: a certificate is
    /// written after its line.
    pub unreadable: Vec<String>,
}

impl Register {
    /// That of an authority's folder.
    pub(super) fn read(folder: &Path) -> Result<Self, AuthorityFault> {
        let path = folder.join(ISSUED_FILE);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            read => Ok(Self::of(&read.map_err(|source| file(&path, source))?)),
        }
    }

    /// The lines of a text. Empty ones say nothing.
    fn of(text: &[u8]) -> Self {
        let mut register = Self::default();
        let lines = text.split(|byte| *byte == b'\n').enumerate();
        for (at, line) in lines.filter(|(_, line)| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(issued) => register.all.push(issued),
                Err(error) => register.unreadable.push(format!("line {}: {error}", at + 1)),
            }
        }
        register
    }

    /// The certificate with this serial number.
    pub(super) fn find(&self, serial: &Serial) -> Result<Issued, AuthorityFault> {
        let text = serial.to_string();
        let found = self.all.iter().find(|issued| issued.serial == text).cloned();
        found.ok_or_else(|| match self.unreadable.as_slice() {
            [] => AuthorityFault::NotIssued(serial.clone()),
            lines => AuthorityFault::Unreadable { serial: serial.clone(), lines: lines.join("; ") },
        })
    }
}

/// Appends a line of JSON, on the disk when this returns. Half a line before it is ended first.
pub(crate) fn append(path: &Path, line: &impl Serialize) -> Result<(), AuthorityFault> {
    let write = || -> io::Result<()> {
        let is_new = !path.exists();
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut text = if ends_well(&mut file)? { Vec::new() } else { vec![b'\n'] };
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()?;
        let folder = path.parent().filter(|folder| is_new && !folder.as_os_str().is_empty());
        folder.map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(|source| file(path, source))
}

/// Whether a file is empty or ends with the end of a line.
fn ends_well(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(serial: &str) -> Issued {
        Issued {
            serial: serial.into(),
            holder: "node us-east/n1".into(),
            not_before: 1,
            not_after: 2,
            fingerprint: "f".into(),
            issuer: "a".into(),
        }
    }

    #[test]
    fn a_line_that_was_cut_off_anywhere_spoils_no_other() {
        let whole = serde_json::to_vec(&issued("22")).expect("JSON");
        for kept in 1..whole.len() {
            let folder = tempfile::tempdir().expect("a directory");
            let path = folder.path().join(ISSUED_FILE);
            append(&path, &issued("11")).expect("appended");
            let mut torn = OpenOptions::new().append(true).open(&path).expect("there");
            torn.write_all(&whole[..kept]).expect("written");
            append(&path, &issued("33")).expect("appended");
            let register = Register::read(folder.path()).expect("readable");
            assert_eq!(register.all, [issued("11"), issued("33")], "{kept} bytes of the second");
            assert_eq!(register.unreadable.len(), 1);
            register.find(&"33".parse().expect("a serial")).expect("found");
            let lost = register.find(&"22".parse().expect("a serial")).expect_err("not found").to_string();
            assert!(lost.contains("line 2"), "it may be the one that cannot be read: {lost}");
        }
    }

    #[test]
    fn a_line_that_only_lacks_its_end_is_whole() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join(ISSUED_FILE);
        fs::write(&path, serde_json::to_vec(&issued("11")).expect("JSON")).expect("written");
        append(&path, &issued("22")).expect("appended");
        let register = Register::read(folder.path()).expect("readable");
        assert_eq!((register.all.len(), register.unreadable.len()), (2, 0));
    }
}
