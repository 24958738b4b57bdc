//! A history that may be, with one of everything.

use crate::operation::{Did, Operation, Outcome, Value};

pub(crate) fn op(process: u32, did: Did, call_ns: u64, return_ns: u64) -> Operation {
    on("k", process, did, call_ns, return_ns)
}

pub(crate) fn on(key: &str, process: u32, did: Did, call_ns: u64, return_ns: u64) -> Operation {
    let (key, return_ns, outcome) = (key.to_owned(), Some(return_ns), Outcome::Ok);
    Operation { process, key, batch: None, did, call_ns, return_ns, outcome }
}

/// Of the keys `l` and `m`.
pub(crate) fn both(batch: u64, process: u32, dids: [Did; 2], call: u64, back: u64) -> [Operation; 2] {
    let [l, m] = dids;
    let line = |key, did| Operation { batch: Some(batch), ..on(key, process, did, call, back) };
    [line("l", l), line("m", m)]
}

pub(crate) fn refused(operation: Operation) -> Operation {
    Operation { outcome: Outcome::Fail, ..operation }
}

pub(crate) fn unknown(operation: Operation) -> Operation {
    Operation { outcome: Outcome::Unknown, return_ns: None, ..operation }
}

pub(crate) fn swap(expected: Option<Value>, new: Value) -> Did {
    Did::Cas { expected, new }
}

pub(crate) fn history() -> Vec<Operation> {
    let of_one = [
        op(1, Did::Read(None), 0, 4),
        op(1, Did::Write(1), 5, 10),
        unknown(op(2, Did::Write(2), 8, 0)),
        op(3, Did::Read(Some(1)), 12, 14),
        op(3, Did::Read(Some(2)), 20, 24),
        op(1, swap(Some(2), 3), 30, 34),
        refused(op(2, Did::Write(4), 35, 36)),
        unknown(op(4, swap(Some(1), 5), 36, 0)),
        op(3, Did::Read(Some(3)), 40, 44),
        unknown(op(5, Did::Delete, 45, 0)),
        op(3, Did::Read(Some(3)), 46, 48),
        op(3, Did::Read(None), 50, 54),
        op(1, swap(None, 6), 60, 64),
        op(1, Did::Delete, 66, 68),
        op(2, Did::Write(7), 70, 80),
        op(3, Did::Read(None), 71, 79),
        op(3, Did::Read(Some(7)), 81, 84),
    ];
    let of_two = [
        both(1, 1, [Did::Read(None), Did::Read(None)], 85, 86),
        both(2, 1, [swap(None, 1), Did::Write(2)], 86, 88),
        both(3, 2, [Did::Write(3), Did::Write(4)], 87, 0).map(unknown),
        both(4, 3, [Did::Read(Some(1)), Did::Read(Some(2))], 88, 90),
        both(5, 4, [Did::Write(5), swap(Some(9), 6)], 88, 90).map(refused),
        both(6, 3, [Did::Read(Some(3)), Did::Read(Some(4))], 91, 92),
        // Nobody saw what it wrote, and nobody that it deleted.
        both(7, 5, [Did::Write(7), Did::Delete], 92, 0).map(unknown),
        both(8, 3, [Did::Read(Some(3)), Did::Read(Some(4))], 93, 94),
    ];
    of_one.into_iter().chain(of_two.into_iter().flatten()).collect()
}
