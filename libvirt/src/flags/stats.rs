//! Lists of domains and their statistics.

use virt_sys as sys;

/// Domains that are on (`VIR_CONNECT_LIST_DOMAINS_ACTIVE`).
pub const LIST_DOMAINS_ACTIVE: u32 = sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE;
/// Domains that are off (`VIR_CONNECT_LIST_DOMAINS_INACTIVE`).
pub const LIST_DOMAINS_INACTIVE: u32 = sys::VIR_CONNECT_LIST_DOMAINS_INACTIVE;
/// Domains with a definition (`VIR_CONNECT_LIST_DOMAINS_PERSISTENT`).
pub const LIST_DOMAINS_PERSISTENT: u32 = sys::VIR_CONNECT_LIST_DOMAINS_PERSISTENT;
/// Domains without one (`VIR_CONNECT_LIST_DOMAINS_TRANSIENT`).
pub const LIST_DOMAINS_TRANSIENT: u32 = sys::VIR_CONNECT_LIST_DOMAINS_TRANSIENT;
/// Domains that run (`VIR_CONNECT_LIST_DOMAINS_RUNNING`).
pub const LIST_DOMAINS_RUNNING: u32 = sys::VIR_CONNECT_LIST_DOMAINS_RUNNING;
/// Domains that are paused (`VIR_CONNECT_LIST_DOMAINS_PAUSED`).
pub const LIST_DOMAINS_PAUSED: u32 = sys::VIR_CONNECT_LIST_DOMAINS_PAUSED;
/// Domains that are shut off (`VIR_CONNECT_LIST_DOMAINS_SHUTOFF`).
pub const LIST_DOMAINS_SHUTOFF: u32 = sys::VIR_CONNECT_LIST_DOMAINS_SHUTOFF;
/// Domains in any other state (`VIR_CONNECT_LIST_DOMAINS_OTHER`).
pub const LIST_DOMAINS_OTHER: u32 = sys::VIR_CONNECT_LIST_DOMAINS_OTHER;
/// Domains with a managed save (`VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE`).
pub const LIST_DOMAINS_MANAGEDSAVE: u32 = sys::VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE;
/// Domains that start with the daemon (`VIR_CONNECT_LIST_DOMAINS_AUTOSTART`).
pub const LIST_DOMAINS_AUTOSTART: u32 = sys::VIR_CONNECT_LIST_DOMAINS_AUTOSTART;
/// Domains with snapshots (`VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT`).
pub const LIST_DOMAINS_HAS_SNAPSHOT: u32 = sys::VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT;
/// State and reason: `state.*` (`VIR_DOMAIN_STATS_STATE`).
pub const STATS_STATE: u32 = sys::VIR_DOMAIN_STATS_STATE;
/// CPU time in nanoseconds: `cpu.*` (`VIR_DOMAIN_STATS_CPU_TOTAL`).
pub const STATS_CPU_TOTAL: u32 = sys::VIR_DOMAIN_STATS_CPU_TOTAL;
/// Memory in KiB: `balloon.*` (`VIR_DOMAIN_STATS_BALLOON`).
pub const STATS_BALLOON: u32 = sys::VIR_DOMAIN_STATS_BALLOON;
/// Each virtual CPU: `vcpu.*` (`VIR_DOMAIN_STATS_VCPU`).
pub const STATS_VCPU: u32 = sys::VIR_DOMAIN_STATS_VCPU;
/// Each network interface: `net.*` (`VIR_DOMAIN_STATS_INTERFACE`).
pub const STATS_INTERFACE: u32 = sys::VIR_DOMAIN_STATS_INTERFACE;
/// Each disk: `block.*` (`VIR_DOMAIN_STATS_BLOCK`).
pub const STATS_BLOCK: u32 = sys::VIR_DOMAIN_STATS_BLOCK;
/// I/O threads: `iothread.*` (`VIR_DOMAIN_STATS_IOTHREAD`).
pub const STATS_IOTHREAD: u32 = sys::VIR_DOMAIN_STATS_IOTHREAD;
/// Memory bandwidth: `memory.*` (`VIR_DOMAIN_STATS_MEMORY`).
pub const STATS_MEMORY: u32 = sys::VIR_DOMAIN_STATS_MEMORY;
/// Numbers of the hypervisor's own: `vm.*`; libvirt 8.9 (`VIR_DOMAIN_STATS_VM`).
pub const STATS_VM: u32 = sys::VIR_DOMAIN_STATS_VM;
/// Only of domains that are on (`VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE`).
pub const STATS_ONLY_ACTIVE: u32 = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE;
/// Only of domains that are off (`VIR_CONNECT_GET_ALL_DOMAINS_STATS_INACTIVE`).
pub const STATS_ONLY_INACTIVE: u32 = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_INACTIVE;
/// Only of domains that run (`VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING`).
pub const STATS_ONLY_RUNNING: u32 = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING;
/// Leave out what would wait for a busy domain (`VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT`).
pub const STATS_NOWAIT: u32 = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;
/// Each layer of each disk (`VIR_CONNECT_GET_ALL_DOMAINS_STATS_BACKING`).
pub const STATS_BACKING: u32 = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_BACKING;
/// Fail if a group is not supported (`VIR_CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS`).
pub const STATS_ENFORCE: u32 = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS;
/// Swapped in by the guest, in KiB (`VIR_DOMAIN_MEMORY_STAT_SWAP_IN`).
pub const MEMORY_STAT_SWAP_IN: i32 = sys::VIR_DOMAIN_MEMORY_STAT_SWAP_IN as i32;
/// Swapped out by the guest, in KiB (`VIR_DOMAIN_MEMORY_STAT_SWAP_OUT`).
pub const MEMORY_STAT_SWAP_OUT: i32 = sys::VIR_DOMAIN_MEMORY_STAT_SWAP_OUT as i32;
/// Page faults of the guest with disk I/O (`VIR_DOMAIN_MEMORY_STAT_MAJOR_FAULT`).
pub const MEMORY_STAT_MAJOR_FAULT: i32 = sys::VIR_DOMAIN_MEMORY_STAT_MAJOR_FAULT as i32;
/// Page faults of the guest without (`VIR_DOMAIN_MEMORY_STAT_MINOR_FAULT`).
pub const MEMORY_STAT_MINOR_FAULT: i32 = sys::VIR_DOMAIN_MEMORY_STAT_MINOR_FAULT as i32;
/// Not used for anything by the guest, in KiB (`VIR_DOMAIN_MEMORY_STAT_UNUSED`).
pub const MEMORY_STAT_UNUSED: i32 = sys::VIR_DOMAIN_MEMORY_STAT_UNUSED as i32;
/// All that the guest sees, in KiB (`VIR_DOMAIN_MEMORY_STAT_AVAILABLE`).
pub const MEMORY_STAT_AVAILABLE: i32 = sys::VIR_DOMAIN_MEMORY_STAT_AVAILABLE as i32;
/// The size of the balloon, in KiB (`VIR_DOMAIN_MEMORY_STAT_ACTUAL_BALLOON`).
pub const MEMORY_STAT_ACTUAL_BALLOON: i32 = sys::VIR_DOMAIN_MEMORY_STAT_ACTUAL_BALLOON as i32;
/// Resident memory of the process, in KiB (`VIR_DOMAIN_MEMORY_STAT_RSS`).
pub const MEMORY_STAT_RSS: i32 = sys::VIR_DOMAIN_MEMORY_STAT_RSS as i32;
/// What the guest could use without swapping, in KiB (`VIR_DOMAIN_MEMORY_STAT_USABLE`).
pub const MEMORY_STAT_USABLE: i32 = sys::VIR_DOMAIN_MEMORY_STAT_USABLE as i32;
/// When the guest said so, in seconds since 1970 (`VIR_DOMAIN_MEMORY_STAT_LAST_UPDATE`).
pub const MEMORY_STAT_LAST_UPDATE: i32 = sys::VIR_DOMAIN_MEMORY_STAT_LAST_UPDATE as i32;
/// Caches of the guest that it can give up, in KiB (`VIR_DOMAIN_MEMORY_STAT_DISK_CACHES`).
pub const MEMORY_STAT_DISK_CACHES: i32 = sys::VIR_DOMAIN_MEMORY_STAT_DISK_CACHES as i32;
