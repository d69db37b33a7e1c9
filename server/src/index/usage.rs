//! What a VM uses of CPU and memory, from the counters of its domain.

use super::Seen;
use api::{Time, vm::Usage};
use hypervisor::domain::{Power, Sample};
use std::time::Instant;

/// Two readings make a use.
pub(super) fn take_sample(seen: &mut Seen, sample: Sample) {
    if seen.power != Power::Running {
        seen.usage = None;
        seen.last_sample = None;
        return;
    }
    let now = Instant::now();
    let cpu_percent = seen.last_sample.and_then(|(last, at)| {
        // The counter starts again when QEMU does.
        let used = sample.cpu_time_ns.checked_sub(last.cpu_time_ns)? as f64;
        let passed = now.duration_since(at).as_nanos() as f64 * f64::from(seen.view.vcpus.max(1));
        (passed > 0.0).then(|| (used / passed * 100.0).clamp(0.0, 100.0))
    });
    let memory_percent = sample.available_kib.zip(sample.usable_kib).and_then(|(available, usable)| {
        let used = available.saturating_sub(usable) as f64;
        (available > 0).then(|| (used / available as f64 * 100.0).clamp(0.0, 100.0))
    });
    if cpu_percent.is_some() || memory_percent.is_some() {
        seen.usage = Some(Usage {
            cpu_percent: cpu_percent.map(tenth),
            memory_percent: memory_percent.map(tenth),
            sampled_at: Time::now(),
        });
    }
    seen.last_sample = Some((sample, now));
}

fn tenth(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}
