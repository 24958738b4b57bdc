//! A snapshot in a file.
//!
//! ```text
//! rhumb-snapshot 1\n
//! a row: length (4 bytes, big-endian), its key on disks; length (4 bytes), its record      in the order of the keys
//! 4 bytes of zero
//! the manifest, JSON: what it is of, how many rows, and the SHA-256 of all that stands before it
//! ```
//!
//! * It decides: the bytes, and whether a file is whole: each record under its key, the rows in their order, of one keyspace
//!   and no later than the snapshot, as many as the manifest says and with its hash.
//! * It never does: open a sealed value. The hash shows that a file is whole, not who made it: compare it with one that came
//!   another way.

use std::io::{self, Read, Write};

use rhumb_storage::mvcc::{Record, VersionKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

const MAGIC: &[u8] = b"rhumb-snapshot 1\n";
/// A row's key and its record are each shorter than this.
const LONGEST: u32 = 1 << 20;
const MANIFEST_AT_MOST: u64 = 1 << 16;

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) keyspace: String,
    pub(super) id: u32,
    pub(super) class: String,
    pub(super) snapshot: String,
    /// The time that it is of.
    pub(super) at: u64,
    pub(super) rows: u64,
    /// Of those, how many are sealed.
    pub(super) sealed: u64,
    pub(super) sha256: String,
}

/// Why a file is no whole snapshot.
#[derive(Debug, Error)]
pub(super) enum NotWhole {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it does not begin as a snapshot of this version does")]
    Magic,
    #[error("row {0} is longer than any row")]
    Long(u64),
    #[error("row {row} is not what was written: {why}")]
    Row { row: u64, why: String },
    #[error("row {0} is not behind the one before it")]
    Order(u64),
    #[error("its manifest cannot be read: {0}")]
    Manifest(#[from] serde_json::Error),
    #[error("its manifest says {said} {what}, and there are {found}")]
    Differs { what: &'static str, said: String, found: String },
}

/// A snapshot that is being written.
pub(super) struct Writer<W> {
    to: W,
    hash: Sha256,
    rows: u64,
    sealed: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn begin(to: W) -> io::Result<Self> {
        let mut this = Self { to, hash: Sha256::new(), rows: 0, sealed: 0 };
        this.put(MAGIC)?;
        Ok(this)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.to.write_all(bytes)
    }

    pub(super) fn row(&mut self, key: &[u8], record: &[u8], sealed: bool) -> io::Result<()> {
        for part in [key, record] {
            let length = u32::try_from(part.len()).ok().filter(|length| *length < LONGEST);
            let length = length
                .ok_or_else(|| io::Error::other("a row is longer than a file of this version has them"))?;
            self.put(&length.to_be_bytes())?;
            self.put(part)?;
        }
        self.rows += 1;
        self.sealed += u64::from(sealed);
        Ok(())
    }

    pub(super) fn end(mut self, of: Manifest) -> io::Result<(Manifest, W)> {
        self.put(&[0; 4])?;
        let sha256 = hex(&self.hash.finalize());
        let manifest = Manifest { rows: self.rows, sealed: self.sealed, sha256, ..of };
        serde_json::to_writer_pretty(&mut self.to, &manifest)?;
        self.to.write_all(b"\n")?;
        Ok((manifest, self.to))
    }
}

struct Reader<R> {
    from: R,
    hash: Sha256,
}

impl<R: Read> Reader<R> {
    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.from.read_exact(&mut bytes)?;
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn length(&mut self, row: u64) -> Result<usize, NotWhole> {
        let bytes = self.take(4)?;
        let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        if length < LONGEST { Ok(length as usize) } else { Err(NotWhole::Long(row)) }
    }
}

/// Reads a whole file, and compares it with what its manifest says.
pub(super) fn verify(from: impl Read) -> Result<Manifest, NotWhole> {
    let mut reader = Reader { from, hash: Sha256::new() };
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(NotWhole::Magic);
    }
    let (mut rows, mut sealed, mut last, mut newest, mut spaces) = (0, 0, Vec::new(), 0, Vec::new());
    loop {
        let number = rows + 1;
        let length = reader.length(number)?;
        if length == 0 {
            break;
        }
        let key = reader.take(length)?;
        let length = reader.length(number)?;
        let record = reader.take(length)?;
        let wrong = |why: String| NotWhole::Row { row: number, why };
        let version = VersionKey::decode(&key).map_err(|error| wrong(error.to_string()))?;
        let record = Record::decode(&key, &record).map_err(|error| wrong(error.to_string()))?;
        if key <= last {
            return Err(NotWhole::Order(number));
        }
        newest = version.at.to_bits().max(newest);
        if spaces.last() != Some(&version.keyspace.0) {
            spaces.push(version.keyspace.0);
        }
        (rows, sealed, last) = (number, sealed + u64::from(record.header.sealed.is_some()), key);
    }
    let sha256 = hex(&reader.hash.finalize());
    let mut rest = String::new();
    reader.from.take(MANIFEST_AT_MOST).read_to_string(&mut rest)?;
    let manifest: Manifest = serde_json::from_str(&rest)?;
    let differs = |what, said: &dyn ToString, found: &dyn ToString| {
        let (said, found) = (said.to_string(), found.to_string());
        if said == found { Ok(()) } else { Err(NotWhole::Differs { what, said, found }) }
    };
    differs("as its SHA-256", &manifest.sha256, &sha256)?;
    differs("rows", &manifest.rows, &rows)?;
    differs("sealed rows", &manifest.sealed, &sealed)?;
    if spaces.iter().any(|space| *space != manifest.id) {
        differs("as its keyspace", &manifest.id, &format!("{spaces:?}"))?;
    }
    if newest > manifest.at {
        differs("as its time", &manifest.at, &newest)?;
    }
    Ok(manifest)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use rhumb_core::HybridTime;
    use rhumb_storage::mvcc::{KeyspaceId, UserKey};

    use super::*;

    fn row(name: &str, at: u64) -> (Vec<u8>, Vec<u8>) {
        let key = UserKey::new(name).expect("short");
        let row = VersionKey { keyspace: KeyspaceId(7), key, at: HybridTime::from_bits(at) }.encode();
        let record = Record::put(format!("of {name}")).encode(&row);
        (row, record)
    }

    fn of(at: u64) -> Manifest {
        Manifest {
            keyspace: "people".to_owned(),
            id: 7,
            class: "inventory".to_owned(),
            snapshot: "monday".to_owned(),
            at,
            rows: 0,
            sealed: 0,
            sha256: String::new(),
        }
    }

    fn written(rows: &[(Vec<u8>, Vec<u8>)], of: Manifest) -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new()).expect("memory");
        rows.iter().for_each(|(key, record)| writer.row(key, record, false).expect("memory"));
        writer.end(of).expect("memory").1
    }

    #[test]
    fn a_file_is_whole_or_it_is_said_what_is_not() {
        let rows = [row("ann", 50), row("bob", 40)];
        let file = written(&rows, of(60));
        let manifest = verify(&file[..]).expect("whole");
        assert_eq!((manifest.rows, manifest.at, manifest.keyspace.as_str()), (2, 60, "people"));
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            let verified = verify(&changed[..]);
            // What the manifest says of names is not hashed; all else is.
            let same = verified.as_ref().is_ok_and(|read| (read.rows, &read.sha256) == (2, &manifest.sha256));
            let in_rows = at < file.len() - serde_json::to_vec_pretty(&manifest).expect("JSON").len() - 1;
            assert!(verified.is_err() || (same && !in_rows), "byte {at} of {}", file.len());
            assert!(verify(&file[..at.min(file.len() - 2)]).is_err(), "cut at {at}");
        }
        let why = |file: &[u8]| verify(file).expect_err("it is not").to_string();
        assert_eq!(
            why(&written(&[row("bob", 40), row("ann", 50)], of(60))),
            "row 2 is not behind the one before it"
        );
        assert_eq!(why(&written(&rows, of(45))), "its manifest says 45 as its time, and there are 50");
        let other = Manifest { id: 8, ..of(60) };
        assert_eq!(why(&written(&rows, other)), "its manifest says 8 as its keyspace, and there are [7]");
        let moved = [(row("ann", 50).0, row("bob", 40).1)];
        assert!(why(&written(&moved, of(60))).starts_with("row 1 is not what was written"));
    }
}
