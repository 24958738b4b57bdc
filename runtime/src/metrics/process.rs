//! What the operating system says of this process, under the names that Prometheus's own clients use.
//!
//! * It decides: how Linux's `/proc` is read. Elsewhere, or where `/proc` is hidden, there is nothing.

use std::fs;

use super::exposition::Page;

/// Ticks of `/proc/PID/stat` a second. Linux's USER_HZ is 100 on every architecture that Rust's standard
/// library runs on.
const TICKS: f64 = 100.0;

/// What `/proc` says of a process.
#[derive(Debug, Default, PartialEq)]
struct Process {
    cpu_seconds: Option<f64>,
    start_seconds: Option<f64>,
    resident_bytes: Option<f64>,
    virtual_bytes: Option<f64>,
    threads: Option<f64>,
    open_files: Option<f64>,
    max_files: Option<f64>,
}

/// Writes what is known of this process.
pub(crate) fn write(page: &mut Page) {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let open_files = fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as f64);
    let process = Process {
        // The reading itself has one open.
        open_files: open_files.map(|open| open - 1.0),
        ..Process::read(
            &text("/proc/self/stat"),
            &text("/proc/self/status"),
            &text("/proc/self/limits"),
            &text("/proc/stat"),
        )
    };
    process.write(page);
}

impl Process {
    /// Reads `/proc/self/stat`, `status`, `limits` and `/proc/stat` (proc(5)).
    fn read(stat: &str, status: &str, limits: &str, system: &str) -> Self {
        // The second field is the program's name in parentheses, which may hold anything.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        // Numbered from 1 in proc(5), and the first of these is the third.
        let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok().map(|n| n / TICKS);
        let of = |text: &str, name: &str, nth: usize| -> Option<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().nth(nth)?.parse().ok()
        };
        let kib = |name| of(status, name, 0).map(|kib| kib * 1024.0);
        Self {
            cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| user + system),
            start_seconds: ticks(22).zip(of(system, "btime", 0)).map(|(after, boot)| boot + after),
            resident_bytes: kib("VmRSS:"),
            virtual_bytes: kib("VmSize:"),
            threads: of(status, "Threads:", 0),
            open_files: None,
            max_files: of(limits, "Max open files", 0),
        }
    }

    fn write(&self, page: &mut Page) {
        if let Some(seconds) = self.cpu_seconds {
            page.counter("process_cpu_seconds", "Processor time used, user and system", seconds);
        }
        let gauges = [
            (
                "process_start_time_seconds",
                "When the process started, since the Unix epoch",
                self.start_seconds,
            ),
            ("process_resident_memory_bytes", "Memory that is resident", self.resident_bytes),
            ("process_virtual_memory_bytes", "Memory that is mapped", self.virtual_bytes),
            ("process_threads", "Threads of the process", self.threads),
            ("process_open_fds", "Files and sockets that are open", self.open_files),
            ("process_max_fds", "Files and sockets that may be open", self.max_files),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                page.gauge(name, help, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_whatever_the_program_is_called() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 900 0 0 0 250 150 0 0 20 0 7 0 12345 1000 200 18446744073709551615";
        let status = "Name:\tx\nVmSize:\t  2048 kB\nVmRSS:\t   512 kB\nThreads:\t7\n";
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024  4096  files\n";
        let read = Process::read(stat, status, limits, "cpu 1 2\nbtime 1700000000\n");
        let want = Process {
            cpu_seconds: Some(4.0),
            start_seconds: Some(1_700_000_123.45),
            resident_bytes: Some(524_288.0),
            virtual_bytes: Some(2_097_152.0),
            threads: Some(7.0),
            open_files: None,
            max_files: Some(1024.0),
        };
        assert_eq!(read, want);
    }

    #[test]
    fn what_proc_does_not_say_is_left_out() {
        assert_eq!(Process::read("", "", "", ""), Process::default());
        let limits = "Max open files            unlimited  unlimited  files\n";
        assert_eq!(Process::read("1 (x) S", "VmRSS:\tnone", limits, "btime"), Process::default());
        let mut page = Page::default();
        Process::default().write(&mut page);
        assert_eq!(page.finish(), "# EOF\n");
    }

    #[test]
    fn this_process_has_memory_threads_and_files() {
        let mut page = Page::default();
        write(&mut page);
        let page = page.finish();
        for name in ["process_resident_memory_bytes", "process_threads", "process_open_fds"] {
            let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
            let value: f64 = line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0.0);
            assert!(value >= 1.0, "{name} is {value}\n{page}");
        }
    }
}
