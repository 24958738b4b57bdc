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
    /// By how much its rate is corrected, in parts per billion (`freq`).
    pub frequency_ppb: i64,
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
        // A part per million is 2^16.
        frequency_ppb: said.freq * 1_000 / 65_536,
    })
}

/// Elsewhere it is not known.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn read() -> Option<Discipline> {
    None
}

/// How long this machine has slept since it was started: CLOCK_MONOTONIC stands still meanwhile, CLOCK_BOOTTIME goes on.
#[cfg(target_os = "linux")]
#[must_use]
#[expect(unsafe_code, reason = "no safe crate among ours reads CLOCK_BOOTTIME")]
pub fn slept() -> Duration {
    let read = |clock| {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a `timespec` that lives for the call.
        let state = unsafe { libc::clock_gettime(clock, &raw mut now) };
        debug_assert_eq!(state, 0, "every Linux has this clock");
        Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
    };
    let awake = read(libc::CLOCK_MONOTONIC);
    read(libc::CLOCK_BOOTTIME).saturating_sub(awake)
}

/// Elsewhere it is not known.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn slept() -> Duration {
    Duration::ZERO
}
