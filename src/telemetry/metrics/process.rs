//! The `process_*` metrics that Prometheus' client libraries have in common, from `/proc`. What cannot be read is left
//! out.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The unit of times in `/proc`, of which a second has 100 on every architecture that we are built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Measures this process whenever it is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let read = |path: &str| fs::read_to_string(path).ok();
        if let Some(seconds) = read("/proc/self/stat").as_deref().and_then(cpu_seconds) {
            let metric = ConstCounter::new(seconds);
            let help = "Total user and system CPU time spent in seconds.";
            let kind = metric.metric_type();
            metric.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, kind)?)?;
        }
        let mut gauge = |name: &str, help: &str, value: Option<f64>| {
            let Some(value) = value else { return Ok(()) };
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        let status = read("/proc/self/status");
        let memory = |field| kilobytes(status.as_deref()?, field);
        gauge("process_resident_memory_bytes", "Resident memory size in bytes.", memory("VmRSS:"))?;
        gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", memory("VmSize:"))?;
        let open = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        let open = open.and_then(|count| u32::try_from(count).ok()).map(f64::from);
        gauge("process_open_fds", "Number of open file descriptors.", open)?;
        let most = read("/proc/self/limits").as_deref().and_then(most_files);
        gauge("process_max_fds", "Maximum number of open file descriptors.", most)?;
        let start = read("/proc/self/stat").zip(read("/proc/stat"));
        let start = start.and_then(|(process, machine)| start_time(&process, &machine));
        gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", start)
    }
}

/// The fields behind the command's name, which may hold blanks and parentheses; the first of them is number 3.
fn field(stat: &str, number: usize) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) / TICKS_PER_SECOND)
}

fn start_time(process: &str, machine: &str) -> Option<f64> {
    let booted = machine.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(booted.trim().parse::<f64>().ok()? + field(process, 22)? / TICKS_PER_SECOND)
}

fn kilobytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

fn most_files(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_a_process_is_read_whatever_its_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 1200 1000000 300 0";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(start_time(stat, "cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_012.0));
        assert_eq!(kilobytes("Name:\tx\nVmRSS:\t    2 kB\n", "VmRSS:"), Some(2048.0));
        assert_eq!(most_files("Limit\nMax open files            1024    4096    files\n"), Some(1024.0));
        assert_eq!((cpu_seconds("7"), start_time(stat, ""), kilobytes("", "VmRSS:")), (None, None, None));
    }
}
