//! Values of personal classes, sealed before they are proposed: each under the key of its subject, for its place alone.
//!
//! * It decides: the bytes of a sealed value, and what stands in its record in the clear: the id of the key and what was
//!   drawn, never the subject's name.
//! * It never does: draw a key or a nonce, or open a value that stands in another place than it was sealed for.
//! * Invariant: a place is keyspace, key, time, schema version, expiry, key id and nonce, with the subject's name: of what
//!   changes any of these nothing is opened.

use rhumb_core::HybridTime;
use rhumb_storage::mvcc::{Header, KeyspaceId, Record, Sealed, UserKey, Version};
use zeroize::Zeroizing;

use crate::audit::seal::{KeyId, SecretKey, Unopened, open_value, seal_value};

/// The key of a subject, and whose it is.
#[derive(Clone, PartialEq, Eq)]
pub struct SubjectKey {
    /// Names it in records.
    pub id: KeyId,
    /// The key.
    pub key: SecretKey,
    /// Whose it is.
    pub subject: String,
}

impl std::fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SubjectKey({})", self.id)
    }
}

/// Seals a record's value for where and when it is written. A deletion has none. The subject's name leaves the record: the
/// key has it, and it ends with the key.
pub fn seal(
    by: &SubjectKey,
    nonce: [u8; 12],
    (keyspace, key, at): (KeyspaceId, &UserKey, HybridTime),
    record: &mut Record,
) {
    record.header.subject = None;
    let Some(value) = record.value.take() else { return };
    let sealed = Sealed { key: by.id.0, nonce };
    record.header.sealed = Some(sealed);
    let place = place((keyspace, key, at), &record.header, sealed, &by.subject);
    record.value = Some(seal_value(&by.key, &place, value));
}

/// Under which key a version is sealed; none: it is not.
#[must_use]
pub fn sealed_under(version: &Version) -> Option<KeyId> {
    version.record.header.sealed.map(|sealed| KeyId(sealed.key))
}

/// The value of a sealed version, where it stands.
///
/// # Errors
/// [`Unopened::Changed`]: it was changed or moved, or is not sealed.
pub fn open(
    by: &SubjectKey,
    (keyspace, key): (KeyspaceId, &UserKey),
    version: &Version,
) -> Result<Zeroizing<Vec<u8>>, Unopened> {
    let header = &version.record.header;
    let (Some(sealed), Some(value)) = (header.sealed, &version.record.value) else {
        return Err(Unopened::Changed);
    };
    open_value(&by.key, &place((keyspace, key, version.at), header, sealed, &by.subject), value)
}

/// All that is said of a value beside it. Each part has a fixed length or says its own.
fn place(
    (keyspace, key, at): (KeyspaceId, &UserKey, HybridTime),
    header: &Header,
    sealed: Sealed,
    subject: &str,
) -> Vec<u8> {
    let mut place = Vec::with_capacity(96 + key.as_bytes().len() + subject.len());
    place.extend(keyspace.0.to_be_bytes());
    place.extend(at.to_bits().to_be_bytes());
    place.push(u8::from(header.schema.is_some()));
    place.extend(header.schema.unwrap_or_default().to_be_bytes());
    place.push(u8::from(header.expires.is_some()));
    place.extend(header.expires.unwrap_or_default().to_bits().to_be_bytes());
    place.extend(sealed.key);
    place.extend(sealed.nonce);
    for part in [key.as_bytes(), subject.as_bytes()] {
        place.extend((part.len() as u64).to_be_bytes());
        place.extend(part);
    }
    place
}

#[cfg(test)]
mod tests {
    use rhumb_storage::mvcc::Subject;

    use super::*;

    const SPACE: KeyspaceId = KeyspaceId(7);

    type Change<'a> = &'a dyn Fn(&mut Version);

    fn at(ms: u64) -> HybridTime {
        HybridTime::new(ms, 0)
    }

    fn key(name: &str) -> UserKey {
        UserKey::new(name).expect("short")
    }

    fn of(subject: &str) -> SubjectKey {
        SubjectKey { id: KeyId([1; 16]), key: SecretKey::new([9; 32]), subject: subject.to_owned() }
    }

    fn sealed() -> Version {
        let mut record = Record::put("her address");
        record.header.schema = Some(2);
        record.header.expires = Some(at(900));
        record.header.subject = Some(Subject::new("ann").expect("short"));
        seal(&of("ann"), [3; 12], (SPACE, &key("profile/1"), at(5)), &mut record);
        Version { at: at(5), record }
    }

    #[test]
    fn a_sealed_value_is_opened_where_it_stands_and_says_neither_itself_nor_whose_it_is() {
        let version = sealed();
        assert_eq!(sealed_under(&version), Some(KeyId([1; 16])));
        let opened = open(&of("ann"), (SPACE, &key("profile/1")), &version).expect("its place");
        assert_eq!(opened.as_slice(), b"her address");
        let bytes = version.record.encode(b"row");
        let has = |what: &[u8]| bytes.windows(what.len()).any(|part| part == what);
        assert!(!has(b"address") && !has(b"ann"), "{bytes:?}");
        assert_eq!(
            Record::decode(b"row", &bytes).as_ref(),
            Ok(&version.record),
            "it is a record as any other"
        );
    }

    #[test]
    fn a_value_that_was_moved_or_changed_is_not_opened() {
        let opens = |by: SubjectKey, space: KeyspaceId, name: &str, change: &dyn Fn(&mut Version)| {
            let mut version = sealed();
            change(&mut version);
            open(&by, (space, &key(name)), &version).is_ok()
        };
        assert!(opens(of("ann"), SPACE, "profile/1", &|_| {}), "as it was");
        assert!(!opens(of("ann"), SPACE, "profile/2", &|_| {}), "another key");
        assert!(!opens(of("bob"), SPACE, "profile/1", &|_| {}), "another subject of that key");
        assert!(!opens(of("ann"), KeyspaceId(8), "profile/1", &|_| {}), "another keyspace");
        let other = SubjectKey { key: SecretKey::new([8; 32]), ..of("ann") };
        assert!(!opens(other, SPACE, "profile/1", &|_| {}), "another subject's key");
        let changes: [(&str, Change<'_>); 7] = [
            ("version", &|version| version.at = at(6)),
            ("schema", &|version| version.record.header.schema = None),
            ("expiry", &|version| version.record.header.expires = Some(at(901))),
            ("key id", &|version| version.record.header.sealed.as_mut().expect("it is").key[0] ^= 1),
            ("nonce", &|version| version.record.header.sealed.as_mut().expect("it is").nonce[0] ^= 1),
            ("value", &|version| version.record.value.as_mut().expect("it has")[0] ^= 1),
            ("seal", &|version| version.record.header.sealed = None),
        ];
        for (what, change) in changes {
            assert!(!opens(of("ann"), SPACE, "profile/1", change), "another {what}");
        }
    }

    #[test]
    fn a_deletion_is_not_sealed_and_names_nobody() {
        let mut record = Record::deleted();
        record.header.subject = Some(Subject::new("ann").expect("short"));
        seal(&of("ann"), [3; 12], (SPACE, &key("profile/1"), at(5)), &mut record);
        assert_eq!(record, Record::deleted());
    }
}
