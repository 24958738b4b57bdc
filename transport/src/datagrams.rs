//! What a datagram wants, by its first bytes: whoever sends noise is answered by silence, and seen here.
//!
//! * It decides: which kind a datagram is counted as.
//! * It never does: let one through or hold one back. QUIC looks at each by itself, and at all of it.
//! * Invariant: constant time and no memory for any bytes.
//!
//! Where the bytes stand: RFC 8999 §5 for every version of QUIC, RFC 9000 §17.2 and §17.3 for this one.

/// What a datagram may be, in the order of [`Kind`].
pub(crate) const KINDS: [&str; 5] = ["connected", "initial", "early", "version", "stray"];

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of a connection that this endpoint may have.
    Connected,
    /// The beginning of one, or what says so: it is authenticated later.
    Initial,
    /// Data before a handshake (0-RTT), which is never taken.
    Early,
    /// Of a version of QUIC that is not spoken here.
    Version,
    /// Not of QUIC, or of no connection of this endpoint.
    Stray,
}

/// Bytes of the connection ids that this endpoint gives.
pub(crate) const ID_BYTES: usize = 8;
/// An Initial in less is not answered (RFC 9000 §14.1).
const INITIAL_BYTES: usize = 1200;
/// The bit of a long header.
const LONG: u8 = 0x80;
const VERSION_1: [u8; 4] = [0, 0, 0, 1];

/// What a datagram is; `ours` says whether this endpoint may have given an id.
pub(crate) fn kind(datagram: &[u8], ours: impl Fn(&[u8; ID_BYTES]) -> bool) -> Kind {
    let known = |bytes: &[u8]| bytes.first_chunk().is_some_and(&ours);
    let [first, rest @ ..] = datagram else { return Kind::Stray };
    if first & LONG == 0 {
        return if known(rest) { Kind::Connected } else { Kind::Stray };
    }
    let Some((version, [length, id @ ..])) = rest.split_at_checked(VERSION_1.len()) else {
        return Kind::Stray;
    };
    match (first >> 4) & 3 {
        _ if version != VERSION_1 => Kind::Version,
        _ if usize::from(*length) == ID_BYTES && known(id) => Kind::Connected,
        0 if datagram.len() >= INITIAL_BYTES => Kind::Initial,
        1 => Kind::Early,
        _ => Kind::Stray,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: [u8; 8] = *b"rhumb-01";

    fn is(datagram: &[u8]) -> Kind {
        kind(datagram, |id| *id == OURS)
    }

    fn long(first: u8, version: [u8; 4], id: &[u8], size: usize) -> Vec<u8> {
        let mut datagram = [&[first], &version[..], &[id.len() as u8], id].concat();
        datagram.resize(size, 7);
        datagram
    }

    #[test]
    fn a_datagram_is_counted_as_what_its_first_bytes_say() {
        let table = [
            ([&[0x40], &OURS[..], b"sealed"].concat(), Kind::Connected),
            // QUIC may grease the bit that is otherwise set (RFC 9287).
            ([&[0x00], &OURS[..], b"sealed"].concat(), Kind::Connected),
            ([&[0x40], &b"another!"[..], b"sealed"].concat(), Kind::Stray),
            (long(0xc3, VERSION_1, b"whatever", 1200), Kind::Initial),
            (long(0xc3, VERSION_1, b"", 1200), Kind::Initial),
            (long(0xc3, VERSION_1, b"whatever", 1199), Kind::Stray),
            (long(0xc3, VERSION_1, &OURS, 60), Kind::Connected),
            (long(0xd3, VERSION_1, b"whatever", 1200), Kind::Early),
            (long(0xe3, VERSION_1, &OURS, 300), Kind::Connected),
            (long(0xe3, VERSION_1, b"whatever", 300), Kind::Stray),
            (long(0xc3, [0x1a, 0x2a, 0x3a, 0x4a], b"whatever", 1200), Kind::Version),
            (long(0xc3, [0; 4], b"whatever", 40), Kind::Version),
            (vec![], Kind::Stray),
            (vec![0x40], Kind::Stray),
            (vec![0xc0, 0, 0, 0, 1], Kind::Stray),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Kind::Stray),
        ];
        for (datagram, wanted) in table {
            assert_eq!(is(&datagram), wanted, "{datagram:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_of_one_kind(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let counted = KINDS[is(&bytes) as usize];
            prop_assert!(!counted.is_empty());
        }
    }
}
