//! What Linux says of a process: its memory and its time on the processors.

use std::collections::BTreeMap;

use anyhow::Context;

/// Bytes of a process that are in memory.
///
/// # Errors
/// There is no such process.
pub fn resident(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).context(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib << 10)
}

/// Nanoseconds that each thread of a process has been on a processor.
#[derive(Debug, Clone, Default)]
pub struct Cpu(BTreeMap<u32, u64>);

impl Cpu {
    /// As of now.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/task");
        let mut threads = BTreeMap::new();
        for thread in std::fs::read_dir(&path).context(path)? {
            let thread = thread?;
            // A thread may end while it is looked at.
            let Ok(text) = std::fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let ran = text.split_whitespace().next().context("an empty schedstat")?.parse()?;
            threads.insert(thread.file_name().to_string_lossy().parse()?, ran);
        }
        Ok(Self(threads))
    }

    /// Nanoseconds since an earlier look, of the threads that are there still.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> u64 {
        let ran = |(id, now): (&u32, &u64)| now.saturating_sub(earlier.0.get(id).copied().unwrap_or(0));
        self.0.iter().map(ran).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        let pid = std::process::id();
        assert!(resident(pid).expect("a process") > 1 << 16);
        let before = Cpu::of(pid).expect("a process");
        let spun: u64 = (0..2_000_000_u64).map(|n| std::hint::black_box(n ^ 7)).sum();
        assert!(spun > 0);
        assert!(Cpu::of(pid).expect("a process").since(&before) > 0);
    }
}
