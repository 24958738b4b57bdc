//! What the kernel says of its clock.
//!
//! It only asks: adjtimex(2) with no mode set changes nothing and needs no right.

use std::time::Duration;

/// The kernel's word on its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discipline {
    /// A time service keeps it in step (`STA_UNSYNC` is not set).
    pub disciplined: bool,
    /// How wrong it is at most (`maxerror`), as its time service says.
    pub max_error: Duration,
    /// How wrong it probably is (`esterror`).
    pub estimated_error: Duration,
}

/// Asks the kernel; none where it does not say.
#[cfg(target_os = "linux")]
#[must_use]
#[expect(unsafe_code, reason = "no safe crate among ours wraps adjtimex(2)")]
pub fn read() -> Option<Discipline> {
    // SAFETY: `timex` is plain numbers, for which zeros are valid, and `modes` 0 only reads.
    let mut said: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a `timex` that lives for the call.
    let state = unsafe { libc::adjtimex(&raw mut said) };
    let micros = |value: libc::c_long| Duration::from_micros(u64::try_from(value).unwrap_or(0));
    (state >= 0).then(|| Discipline {
        disciplined: said.status & libc::STA_UNSYNC == 0,
        max_error: micros(said.maxerror),
        estimated_error: micros(said.esterror),
    })
}

/// Elsewhere it is not known.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn read() -> Option<Discipline> {
    None
}
