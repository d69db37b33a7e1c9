//! A VM in the index, and how it is shown.

use super::volumes::Volumes;
use crate::{
    size::gib,
    store::{VmPhase, VmRecord, VmSpec, VolumeRecord, VolumeRole},
};
use api::{
    Time,
    disk::{Disk, DiskLimits, DiskRole},
    nic::{Link, Nic},
    vm::{BootDevice, Firmware, Pending, Usage, Vm, VmState},
};
use hypervisor::domain::{Address, DomainView, Power};
use std::{sync::Arc, time::Instant};
use uuid::Uuid;

/// A VM in the index: recorded (ours), seen on a node, or both.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The node.
    pub node: String,
    /// The store's record; `None` for a domain that isn't ours.
    pub record: Option<VmRecord>,
    /// What its node told; `None` when it never did, or when the domain is gone.
    pub seen: Option<Seen>,
    /// The key of its name, kept by [`super::Entries`].
    pub(super) name_key: Arc<str>,
}

/// What a node told of a domain.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its power state.
    pub power: Power,
    /// Its configuration.
    pub view: Arc<DomainView>,
    /// When the node last told.
    pub at: Time,
    /// When the configuration was read.
    pub view_read: Instant,
    /// Whether the domain has left a call unanswered: its QEMU hangs.
    pub silent: bool,
    /// How often the guest was reset since Vmyard first saw it.
    pub resets: u64,
    /// Addresses that the guest agent told.
    pub agent_addresses: Vec<Address>,
    /// Use of CPU and memory.
    pub usage: Option<Usage>,
    /// The number of the read that told it: an answer that was overtaken by a newer one is dropped.
    pub(super) read: u64,
}

impl Seen {
    /// What a node told now, by the read of this number, after what it told before.
    pub(super) fn of(power: Power, view: DomainView, before: Option<Seen>, read: u64) -> Seen {
        let resets = before.as_ref().map_or(0, |seen| seen.resets);
        let previous = before.filter(|_| power != Power::Off);
        Seen {
            power,
            view: Arc::new(view),
            at: Time::now(),
            view_read: Instant::now(),
            silent: false,
            resets,
            usage: previous.as_ref().and_then(|seen| seen.usage.clone()),
            agent_addresses: previous.map(|seen| seen.agent_addresses).unwrap_or_default(),
            read,
        }
    }
}

impl Entry {
    /// The VM's id.
    pub fn id(&self) -> Option<Uuid> {
        self.record.as_ref().map(|record| record.id).or_else(|| self.seen.as_ref().map(|seen| seen.view.uuid))
    }

    /// The name that users know.
    pub fn name(&self) -> &str {
        let metadata = || self.seen.as_ref().map(|seen| seen.view.name.as_str());
        self.record.as_ref().map(|record| record.name.as_str()).or_else(metadata).unwrap_or_default()
    }

    /// Its name as it is compared and sorted: without case.
    pub fn name_key(&self) -> &str {
        &self.name_key
    }

    /// Its power state, if known.
    pub fn power(&self) -> Option<Power> {
        self.seen.as_ref().map(|seen| seen.power)
    }

    /// Its state as users see it.
    pub fn state(&self) -> VmState {
        match (self.record.as_ref().map(|record| record.phase), self.power()) {
            (Some(VmPhase::Creating), _) => VmState::Creating,
            (Some(VmPhase::Deleting), _) => VmState::Deleting,
            (_, Some(Power::Running)) => VmState::Running,
            (_, Some(Power::Paused)) => VmState::Paused,
            (_, Some(Power::Off)) => VmState::Shutoff,
            (_, None) => VmState::Unknown,
        }
    }

    /// What it reserves of its node when it is on: virtual CPUs, and memory in MiB.
    pub fn reserves(&self) -> Option<(u32, u64)> {
        let seen = self.seen.as_ref().filter(|seen| seen.power != Power::Off)?;
        Some((seen.view.vcpus, seen.view.memory_mib))
    }

    /// The VM on the wire, without what only describe-vm knows.
    pub fn to_wire(&self, node_up: bool, volumes: &Volumes) -> Vm {
        let (record, seen) = (self.record.as_ref(), self.seen.as_ref());
        let spec = record.map(|record| &record.spec);
        let view = seen.map(|seen| &seen.view);
        let size = |of_view: fn(&DomainView) -> u64, of_spec: Option<u64>| {
            view.map(|view| of_view(view)).or(of_spec).unwrap_or(0)
        };
        Vm {
            id: self.id().unwrap_or_default(),
            name: self.name().to_owned(),
            state: self.state(),
            node: self.node.clone(),
            domain: view
                .map(|view| view.name.clone())
                .or(record.map(|record| record.domain.clone()))
                .unwrap_or_default(),
            template: spec.and_then(|spec| spec.template_name.clone()),
            pool: spec.map(|spec| spec.pool_name.clone()),
            vcpus: size(|view| view.vcpus.into(), spec.map(|spec| spec.vcpus.into())) as u32,
            max_vcpus: size(|view| view.max_vcpus.into(), spec.map(|spec| spec.max_vcpus.into())) as u32,
            memory_mib: size(|view| view.memory_mib, spec.map(|spec| spec.memory_mib)),
            max_memory_mib: size(|view| view.max_memory_mib, spec.map(|spec| spec.max_memory_mib)),
            pending: seen.filter(|seen| seen.power != Power::Off).and_then(|seen| pending(&seen.view)),
            tags: spec.map(|spec| spec.tags.clone()).unwrap_or_default(),
            description: spec.map(|spec| spec.description.clone()).unwrap_or_default(),
            firmware: match view.map(|view| view.uefi) {
                Some(true) => Firmware::Uefi,
                Some(false) => Firmware::Bios,
                None => spec.map(|spec| spec.firmware).unwrap_or_default(),
            },
            disks: view.map(|view| disks(view, |path| volumes.at(&self.node, path))).unwrap_or_default(),
            iso: view.and_then(|view| view.iso().map(str::to_owned)),
            boot_order: view.map(|view| boot_order(&view.boot)).unwrap_or_default(),
            autostart: view.is_some_and(|view| view.autostart),
            networks: view.map(|view| nics(view, spec)).unwrap_or_default(),
            usage: None,
            user: spec.and_then(|spec| spec.user.clone()),
            cloud_init: spec.and_then(|spec| spec.cloud_init.clone()),
            credential_checks: Vec::new(),
            changed_outside: Vec::new(),
            guest: None,
            guest_unavailable: None,
            managed: record.is_some(),
            stale: !node_up || seen.is_some_and(|seen| seen.silent),
            observed_at: seen.map(|seen| seen.at),
            created_at: record.map(|record| record.created_at),
        }
    }
}

/// What the next boot of a domain that is on will change.
fn pending(view: &DomainView) -> Option<Pending> {
    let next = view.at_next_start.as_ref()?;
    Some(Pending {
        vcpus: Some(next.vcpus).filter(|vcpus| *vcpus != view.vcpus),
        memory_mib: Some(next.memory_mib).filter(|memory_mib| *memory_mib != view.memory_mib),
        boot_order: (next.boot != view.boot).then(|| boot_order(&next.boot)),
    })
}

fn boot_order(order: &[hypervisor::domain::BootDevice]) -> Vec<BootDevice> {
    let device = |device: &hypervisor::domain::BootDevice| match device {
        hypervisor::domain::BootDevice::Disk => BootDevice::Disk,
        hypervisor::domain::BootDevice::Cdrom => BootDevice::Cdrom,
        hypervisor::domain::BootDevice::Network => BootDevice::Network,
    };
    order.iter().map(device).collect()
}

/// The limits of a disk; `None` when there are none.
fn limits(limits: hypervisor::domain::DiskLimits) -> Option<DiskLimits> {
    let limited = |limit: u64| Some(limit).filter(|limit| *limit > 0);
    let wire = DiskLimits {
        total_iops: limited(limits.total_iops),
        read_iops: limited(limits.read_iops),
        write_iops: limited(limits.write_iops),
        total_bytes_per_s: limited(limits.total_bytes_per_s),
        read_bytes_per_s: limited(limits.read_bytes_per_s),
        write_bytes_per_s: limited(limits.write_bytes_per_s),
    };
    Some(wire).filter(|wire| *wire != DiskLimits::default())
}

/// The disks; the first one of a domain whose volumes aren't known is the one that it boots from.
fn disks<'a>(view: &DomainView, volume_at: impl Fn(&str) -> Option<&'a VolumeRecord>) -> Vec<Disk> {
    let of_disk = |(position, disk): (usize, &hypervisor::domain::DiskView)| {
        let volume = disk.path.as_deref().and_then(&volume_at);
        let system = volume.map_or(position == 0, |volume| volume.role == VolumeRole::System);
        Disk {
            device: disk.target.clone(),
            volume: volume.map(|volume| volume.id),
            pool: volume
                .map(|volume| volume.pool_name.clone())
                .or_else(|| disk.volume.as_ref().map(|(pool, _)| pool.clone())),
            path: disk.path.clone(),
            size_gib: volume.map(|volume| gib(volume.size_bytes)),
            role: if system { DiskRole::System } else { DiskRole::Data },
            limits: limits(disk.limits),
        }
    };
    view.disks.iter().filter(|disk| !disk.cdrom).enumerate().map(of_disk).collect()
}

fn nics(view: &DomainView, spec: Option<&VmSpec>) -> Vec<Nic> {
    let reserved = |mac: &str| spec?.reserved.iter().find(|reserved| reserved.mac == mac).map(|reserved| reserved.ip);
    let of_nic = |nic: &hypervisor::domain::NicView| Nic {
        network: nic.network.clone(),
        mac: nic.mac.clone(),
        ip: reserved(&nic.mac.to_lowercase()),
        link: if nic.link_up { Link::Up } else { Link::Down },
        rx_kb_per_s: nic.rx_kb_per_s,
        tx_kb_per_s: nic.tx_kb_per_s,
        addresses: Vec::new(),
    };
    view.nics.iter().map(of_nic).collect()
}
