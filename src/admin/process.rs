//! The process metrics that Prometheus client libraries usually export: memory, CPU time, file descriptors, threads.
//!
//! They are read from `/proc` at each scrape. Values that cannot be read are omitted.

use std::fs;

/// Clock ticks per second in `/proc/self/stat` (`USER_HZ`): 100 on Linux.
const TICKS: f64 = 100.0;

/// Metrics of this process.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) resident_bytes: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
    pub(super) threads: Option<u64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self {
            resident_bytes: field(&status, "VmRSS:").map(|kib| kib * 1024),
            cpu_seconds: cpu_seconds(&stat),
            // The descriptor of the directory itself does not count.
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|files| (files.count() as u64).saturating_sub(1)),
            max_fds: field(&limits, "Max open files"),
            threads: field(&status, "Threads:"),
        }
    }
}

/// Returns the first number after `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Returns user and system time in seconds: fields 14 and 15 of `stat`. Parsing starts after the process name,
/// which may contain spaces and parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    #[expect(clippy::cast_precision_loss, reason = "exact for a million years of CPU time")]
    let ticks = ticks()?.checked_add(ticks()?)? as f64;
    Some(ticks / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_read() {
        let process = Process::read();
        assert!(process.resident_bytes.unwrap() > 100_000);
        assert!(process.open_fds.unwrap() >= 3 && process.max_fds.unwrap() >= process.open_fds.unwrap());
        assert!(process.threads.unwrap() >= 1 && process.cpu_seconds.is_some());
    }

    #[test]
    fn process_name_may_contain_parentheses() {
        let stat = "1 (a) (b) S 1 1 1 0 -1 4194560 1 2 3 4 250 150 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu_seconds(stat), Some(4.0));
    }

    #[test]
    fn cpu_time_may_exceed_32_bits_of_ticks() {
        let stat = "1 (a) S 1 1 1 0 -1 4194560 1 2 3 4 4294967296 4 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu_seconds(stat), Some(42_949_673.0));
    }
}
