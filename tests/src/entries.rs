//! Every way by which bytes from outside come in, as one function each: what the fuzzers drive (`fuzz/`), and what
//! `make test` replays their kept inputs through (`fuzz/corpus/`).
//!
//! * They decide: nothing. Each hands bytes to the reader that a node hands them to, under the name that the folder
//!   of its inputs has.
//! * They never do: mock a reader, or know a byte of a format beyond what lets a fuzzer past a checksum or a mark
//!   of layout.
//! * Invariant: whatever the bytes are, they return. What is read, writes back as something that reads the same.

mod disk;
mod files;
mod headers;
mod wire;

pub use wire::messages;

/// A way in.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its name, and that of the folder of its kept inputs.
    pub name: &'static str,
    /// Takes the bytes. It panics where an invariant does not hold.
    pub take: fn(&[u8]),
}

/// All of them.
pub const ENTRIES: [Entry; 15] = [
    Entry { name: "address", take: headers::address },
    Entry { name: "audit", take: files::audit },
    Entry { name: "certificate", take: wire::certificate },
    Entry { name: "control", take: wire::control },
    Entry { name: "envelope", take: wire::envelope },
    Entry { name: "gathered", take: wire::gathered },
    Entry { name: "headers", take: headers::headers },
    Entry { name: "hello", take: wire::hello },
    Entry { name: "log", take: disk::log },
    Entry { name: "message", take: wire::message },
    Entry { name: "policy", take: files::policy },
    Entry { name: "records", take: disk::records },
    Entry { name: "requests", take: files::requests },
    Entry { name: "settings", take: files::settings },
    Entry { name: "time", take: wire::time },
];

/// Takes the bytes in by the way of this name.
///
/// # Panics
/// When there is none, or an invariant does not hold.
pub fn take(name: &str, bytes: &[u8]) {
    let entry = ENTRIES.iter().find(|entry| entry.name == name);
    (entry.unwrap_or_else(|| panic!("there is no way in that is called {name}")).take)(bytes);
}
