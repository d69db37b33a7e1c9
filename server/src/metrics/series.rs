//! The figures that are kept of a VM: their names, units and precision.

use std::sync::Arc;

/// A figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Metric {
    /// Share of the virtual CPUs in use.
    CpuPercent = 1,
    /// Memory in use; its part is where that was learnt.
    MemoryUsed = 2,
    /// Memory that there is; its part as above.
    MemoryTotal = 3,
    /// Share of the memory in use; its part as above.
    MemoryPercent = 4,
    /// Bytes read from a disk, or, without a part, from all.
    DiskReadBytes = 5,
    /// Bytes written.
    DiskWriteBytes = 6,
    /// Read requests.
    DiskReadRequests = 7,
    /// Write requests.
    DiskWriteRequests = 8,
    /// Bytes that the guest received by an interface, or, without a part, by all.
    NetRxBytes = 9,
    /// Bytes that the guest sent.
    NetTxBytes = 10,
    /// Packets received.
    NetRxPackets = 11,
    /// Packets sent.
    NetTxPackets = 12,
}

/// All figures, in the order of answers.
pub const METRICS: [Metric; 12] = [
    Metric::CpuPercent,
    Metric::MemoryUsed,
    Metric::MemoryTotal,
    Metric::MemoryPercent,
    Metric::DiskReadBytes,
    Metric::DiskWriteBytes,
    Metric::DiskReadRequests,
    Metric::DiskWriteRequests,
    Metric::NetRxBytes,
    Metric::NetTxBytes,
    Metric::NetRxPackets,
    Metric::NetTxPackets,
];

/// The rates of a disk, in the order of [`hypervisor::domain::DeviceCounters::counts`].
pub const OF_DISKS: [Metric; 4] =
    [Metric::DiskReadRequests, Metric::DiskReadBytes, Metric::DiskWriteRequests, Metric::DiskWriteBytes];
/// The rates of an interface, in the order of [`hypervisor::domain::DeviceCounters::counts`].
pub const OF_NICS: [Metric; 4] = [Metric::NetRxBytes, Metric::NetRxPackets, Metric::NetTxBytes, Metric::NetTxPackets];

impl Metric {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Metric::CpuPercent => "cpu_percent",
            Metric::MemoryUsed => "memory_used_mib",
            Metric::MemoryTotal => "memory_total_mib",
            Metric::MemoryPercent => "memory_percent",
            Metric::DiskReadBytes => "disk_read_bytes_per_s",
            Metric::DiskWriteBytes => "disk_write_bytes_per_s",
            Metric::DiskReadRequests => "disk_read_iops",
            Metric::DiskWriteRequests => "disk_write_iops",
            Metric::NetRxBytes => "net_rx_bytes_per_s",
            Metric::NetTxBytes => "net_tx_bytes_per_s",
            Metric::NetRxPackets => "net_rx_packets_per_s",
            Metric::NetTxPackets => "net_tx_packets_per_s",
        }
    }

    /// Its unit on the wire.
    pub fn unit(self) -> &'static str {
        match self {
            Metric::CpuPercent | Metric::MemoryPercent => "%",
            Metric::MemoryUsed | Metric::MemoryTotal => "MiB",
            Metric::DiskReadBytes | Metric::DiskWriteBytes | Metric::NetRxBytes | Metric::NetTxBytes => "bytes/s",
            Metric::DiskReadRequests | Metric::DiskWriteRequests => "requests/s",
            Metric::NetRxPackets | Metric::NetTxPackets => "packets/s",
        }
    }

    /// How many of what is kept make one: whole bytes a second, hundredths of all others.
    pub(super) fn scale(self) -> f64 {
        match self.unit() {
            "bytes/s" => 1.0,
            _ => 100.0,
        }
    }

    /// The figure of this number.
    pub(super) fn of(code: u8) -> Option<Metric> {
        METRICS.into_iter().find(|metric| *metric as u8 == code)
    }
}

/// One series of a VM.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The figure.
    pub metric: Metric,
    /// The disk (`vda`), the interface (its hardware address), or where a memory figure was learnt; `None` for a sum, and for what
    /// has no parts.
    pub part: Option<Arc<str>>,
}

impl Key {
    /// Of the VM as a whole.
    pub(super) fn whole(metric: Metric) -> Key {
        Key { metric, part: None }
    }

    /// Of a part of it.
    pub(super) fn part(metric: Metric, part: &str) -> Key {
        Key { metric, part: Some(Arc::from(part)) }
    }
}

/// A VM's figures at one time, as they are kept.
pub type Point = Vec<(Key, i64)>;

/// As it is kept.
pub(super) fn fixed(metric: Metric, value: f64) -> i64 {
    (value * metric.scale()).round() as i64
}

/// As it was.
pub(super) fn number(metric: Metric, kept: i64) -> f64 {
    kept as f64 / metric.scale()
}

/// Adds the sums over disks and interfaces, so that those need not be sent beside their parts.
pub(super) fn with_sums(mut point: Point) -> Point {
    for metric in OF_DISKS.into_iter().chain(OF_NICS) {
        let mut parts = point.iter().filter(|(key, _)| key.metric == metric).map(|(_, value)| *value).peekable();
        if parts.peek().is_some() {
            let sum = parts.sum();
            point.push((Key::whole(metric), sum));
        }
    }
    point
}
