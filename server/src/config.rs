//! The configuration: a TOML file, with the command line on top.

use crate::store::Store;
use hypervisor::{NodeUri, VirtType, VirtTypeSetting};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// The configuration. Every field has a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where ports for VNC clients listen; where the API does when absent.
    pub console_listen: Option<IpAddr>,
    /// Listen beyond loopback although the connection is not encrypted.
    pub insecure: bool,
    /// Database, tokens; no disk.
    pub data_dir: PathBuf,
    /// The database's URL; `sqlite://DATA_DIR/vmyard.db` when absent.
    pub database: Option<String>,
    /// The nodes, by name; `local` at `qemu:///system` when there is none.
    pub nodes: BTreeMap<String, NodeSettings>,
    /// Seconds between two scans of a node.
    pub scan_interval_s: u64,
    /// The fewest characters of a password that create-vm and reset-vm-password take; 0 takes all.
    pub min_password_length: usize,
    /// What is measured of VMs, and how long it is kept.
    pub metrics: MetricsSettings,
}

/// What is measured of VMs, and how long it is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSettings {
    /// Seconds between two samples.
    pub interval_s: u32,
    /// A Prometheus that reads `/metrics`, or what speaks as it does: then describe-vm-metrics asks it, and Vmyard keeps no history.
    pub url: Option<String>,
    /// The file of the history; `DATA_DIR/metrics.db` when absent.
    pub file: Option<PathBuf>,
    /// Hours for which samples are kept.
    pub raw_hours: u32,
    /// Days for which roll-ups of five minutes are kept.
    pub five_minute_days: u32,
    /// Days for which roll-ups of an hour are kept.
    pub hour_days: u32,
    /// The most that the history may take, in MiB; what is oldest goes first.
    pub max_mib: u64,
}

impl Default for MetricsSettings {
    fn default() -> MetricsSettings {
        MetricsSettings {
            interval_s: 10,
            url: None,
            file: None,
            raw_hours: 24,
            five_minute_days: 30,
            hour_days: 400,
            max_mib: 10_240,
        }
    }
}

impl MetricsSettings {
    /// Says which setting won't do, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let between = |key, value: u32, least: u32, most: u32| match (least..=most).contains(&value) {
            true => Ok(()),
            false => Err((key, format!("must be between {least} and {most}, is {value}"))),
        };
        if let Some(url) = &self.url {
            let parsed = reqwest::Url::parse(url).map_err(|error| ("url", format!("is no URL: {error}")))?;
            if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
                return Err(("url", format!("must be http://HOST:PORT, or https://; it is {url}")));
            }
        }
        between("interval_s", self.interval_s, 1, 300)?;
        between("raw_hours", self.raw_hours, 2, 8760)?;
        between("five_minute_days", self.five_minute_days, 1, 3650)?;
        between("hour_days", self.hour_days, 1, 3650)?;
        match self.max_mib {
            0 => Err(("max_mib", "must be at least 1, is 0".to_owned())),
            _ => Ok(()),
        }
    }
}

/// A node's settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSettings {
    /// The libvirt URI.
    pub uri: NodeUri,
    /// `auto`, `kvm` or `qemu`.
    #[serde(default)]
    pub virt_type: VirtTypeName,
    /// Virtual CPUs that may be reserved for each CPU of the host.
    #[serde(default = "cpu_overcommit")]
    pub cpu_overcommit: f64,
    /// Memory that may be reserved, as a multiple of the host's.
    #[serde(default = "memory_overcommit")]
    pub memory_overcommit: f64,
    /// Memory kept for the host itself, in MiB.
    #[serde(default = "reserved_memory_mib")]
    pub reserved_memory_mib: u64,
    /// Where the pool `default` is made when there is none.
    #[serde(default = "default_pool_path")]
    pub default_pool_path: String,
    /// Where the pool of the seeds is made.
    #[serde(default = "seed_pool_path")]
    pub seed_pool_path: String,
}

/// How guests are to run on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VirtTypeName {
    /// KVM where it is usable, else TCG.
    #[default]
    Auto,
    /// KVM.
    Kvm,
    /// TCG.
    Qemu,
}

impl From<VirtTypeName> for VirtTypeSetting {
    fn from(name: VirtTypeName) -> VirtTypeSetting {
        match name {
            VirtTypeName::Auto => VirtTypeSetting::Auto,
            VirtTypeName::Kvm => VirtTypeSetting::Only(VirtType::Kvm),
            VirtTypeName::Qemu => VirtTypeSetting::Only(VirtType::Qemu),
        }
    }
}

fn cpu_overcommit() -> f64 {
    16.0
}

fn memory_overcommit() -> f64 {
    1.0
}

fn reserved_memory_mib() -> u64 {
    512
}

fn default_pool_path() -> String {
    "/var/lib/libvirt/images".to_owned()
}

fn seed_pool_path() -> String {
    "/var/lib/libvirt/vmyard-seeds".to_owned()
}

impl NodeSettings {
    /// Says which setting won't do, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        self.uri.check().map_err(|why| ("uri", why))?;
        for (key, value) in [("cpu_overcommit", self.cpu_overcommit), ("memory_overcommit", self.memory_overcommit)] {
            if !(0.01..=1000.0).contains(&value) {
                return Err((key, "must be between 0.01 and 1000".to_owned()));
            }
        }
        for (key, path) in [("default_pool_path", &self.default_pool_path), ("seed_pool_path", &self.seed_pool_path)] {
            if !path.starts_with('/') {
                return Err((key, "must be an absolute path on the node".to_owned()));
            }
        }
        Ok(())
    }

    /// A node with the default settings.
    pub fn at(uri: &str) -> NodeSettings {
        NodeSettings {
            uri: NodeUri::new(uri),
            virt_type: VirtTypeName::default(),
            cpu_overcommit: cpu_overcommit(),
            memory_overcommit: memory_overcommit(),
            reserved_memory_mib: reserved_memory_mib(),
            default_pool_path: default_pool_path(),
            seed_pool_path: seed_pool_path(),
        }
    }
}

impl Config {
    /// The database's URL.
    pub fn database_url(&self) -> String {
        self.database.clone().unwrap_or_else(|| Store::default_url(&self.data_dir))
    }

    /// The nodes; `local` at `qemu:///system` when there is none.
    pub fn nodes_or_local(&self) -> BTreeMap<String, NodeSettings> {
        match self.nodes.is_empty() {
            true => [("local".to_owned(), NodeSettings::at("qemu:///system"))].into(),
            false => self.nodes.clone(),
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 7777)),
            console_listen: None,
            insecure: false,
            data_dir: PathBuf::from("/var/lib/vmyard"),
            database: None,
            nodes: BTreeMap::new(),
            scan_interval_s: 10,
            min_password_length: 0,
            metrics: MetricsSettings::default(),
        }
    }
}
