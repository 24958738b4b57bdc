//! What the shim wrote down, read back. Pure.
//!
//! * It decides: where the journal ends. A last record that is cut off did not happen: its call never
//!   returned.
//! * It never does: skip what it does not know.

/// "RHMJ", in the order of a little-endian machine.
const MAGIC: u32 = 0x5248_4d4a;
const HEAD: usize = 40;

/// One thing that happened to a file, or to a name, by the number that the file system gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A file or directory was made under a name.
    Created {
        /// Which.
        inode: u64,
        /// The directory in which its name stands.
        directory: u64,
        /// Its name.
        name: String,
        /// Whether it is a directory itself.
        is_directory: bool,
    },
    /// Bytes were written.
    Wrote {
        /// Into which file.
        inode: u64,
        /// Where, in bytes.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// A file was cut off, or made longer with zeros.
    Sized {
        /// Which.
        inode: u64,
        /// Its length, in bytes.
        length: u64,
    },
    /// A sync began: it covers what happened before.
    SyncBegan {
        /// Of which file or directory.
        inode: u64,
        /// Which sync.
        token: u64,
    },
    /// A sync was done.
    Synced {
        /// Which.
        token: u64,
    },
    /// A sync failed.
    SyncFailed {
        /// Which.
        token: u64,
    },
    /// A file got one more name.
    Linked {
        /// Which.
        inode: u64,
        /// The directory.
        directory: u64,
        /// The name.
        name: String,
    },
    /// A symbolic link was made.
    Pointed {
        /// Which.
        inode: u64,
        /// The directory.
        directory: u64,
        /// The name.
        name: String,
        /// Where it points.
        to: String,
    },
    /// A name was taken away, of a file or of a directory.
    Removed {
        /// The directory.
        directory: u64,
        /// The name.
        name: String,
    },
    /// A name was replaced by another, perhaps over a file that had it.
    Renamed {
        /// The directory and the name before.
        from: (u64, String),
        /// The directory and the name after.
        to: (u64, String),
    },
    /// The process ended before this call.
    Stopped {
        /// Its number.
        call: u64,
    },
}

/// Reads a journal.
///
/// # Errors
/// A record that no shim writes, and where it stands.
pub(super) fn read(mut bytes: &[u8]) -> Result<Vec<Event>, String> {
    let whole = bytes.len();
    let mut events = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(HEAD) {
        let wrong = |what: String| format!("{what} at byte {} of the journal", whole - bytes.len());
        let number = |at: usize| u64::from_le_bytes(*head[at..].first_chunk().expect("the head has it"));
        let (magic, kind) = (number(0) as u32, number(0) >> 32);
        if magic != MAGIC {
            return Err(wrong("no record".into()));
        }
        let (a, b, c, length) = (number(8), number(16), number(24), number(32));
        let Some((payload, rest)) = usize::try_from(length).ok().and_then(|n| rest.split_at_checked(n))
        else {
            break;
        };
        let event = event(kind, a, b, c, payload);
        events.push(event.ok_or_else(|| wrong(format!("a record of kind {kind} that cannot be")))?);
        bytes = rest;
    }
    Ok(events)
}

fn event(kind: u64, a: u64, b: u64, c: u64, payload: &[u8]) -> Option<Event> {
    let name = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some(match kind {
        1 => Event::Created { inode: a, directory: b, name: name(payload)?, is_directory: c == 1 },
        2 => Event::Wrote { inode: a, offset: b, bytes: payload.to_vec() },
        3 => Event::Sized { inode: a, length: b },
        4 => Event::SyncBegan { inode: a, token: c },
        5 => Event::Synced { token: c },
        6 => Event::SyncFailed { token: c },
        7 => Event::Linked { inode: a, directory: b, name: name(payload)? },
        8 => Event::Removed { directory: b, name: name(payload)? },
        9 => {
            let mut names = payload.splitn(2, |byte| *byte == 0);
            let (from, to) = (name(names.next()?)?, name(names.next()?)?);
            Event::Renamed { from: (b, from), to: (c, to) }
        }
        10 => Event::Stopped { call: a },
        11 => {
            let mut names = payload.splitn(2, |byte| *byte == 0);
            let (own, to) = (name(names.next()?)?, name(names.next()?)?);
            Event::Pointed { inode: a, directory: b, name: own, to }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, a: u64, b: u64, c: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = [MAGIC.to_le_bytes(), kind.to_le_bytes()].concat();
        for number in [a, b, c, payload.len() as u64] {
            bytes.extend(number.to_le_bytes());
        }
        [&bytes, payload].concat()
    }

    #[test]
    fn a_journal_that_is_cut_off_anywhere_is_read_up_to_the_last_whole_record() {
        let first = record(1, 7, 2, 0, b"000004.log");
        let all = [
            first.clone(),
            record(2, 7, 100, 0, b"bytes"),
            record(9, 0, 2, 3, b"a\0b"),
            record(11, 8, 2, 0, b"now\0a/1"),
        ]
        .concat();
        let events = read(&all).expect("a journal");
        assert_eq!(events.len(), 4);
        assert_eq!(events[1], Event::Wrote { inode: 7, offset: 100, bytes: b"bytes".to_vec() });
        assert_eq!(events[2], Event::Renamed { from: (2, "a".into()), to: (3, "b".into()) });
        let pointed = Event::Pointed { inode: 8, directory: 2, name: "now".into(), to: "a/1".into() };
        assert_eq!(events[3], pointed);
        for cut in 0..all.len() {
            let events = read(&all[..cut]).expect("a journal");
            assert_eq!(events.is_empty(), cut < first.len(), "cut at {cut}");
        }
    }

    #[test]
    fn what_no_shim_writes_is_refused() {
        assert!(read(&[0; HEAD]).is_err_and(|why| why.contains("no record at byte 0")));
        assert!(read(&record(99, 0, 0, 0, b"")).is_err_and(|why| why.contains("kind 99")));
    }
}
