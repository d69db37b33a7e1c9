//! The domains that Vmyard defines: <https://libvirt.org/formatdomain.html>.
//!
//! A new domain is made ready for what comes later: spare PCIe ports (q35 has none for a second hot-plugged device),
//! headroom for CPUs and memory where a maximum is asked for, an agent channel, a serial line with a log that needs no
//! reader, and a VNC display with a password that has expired (QEMU started without one could never be given one, and
//! would let every local user in).

use super::{
    BootDevice, Metadata,
    cdrom::{DRIVE, SEED_DRIVE, write_drive},
    display::EXPIRED,
    sample::BALLOON_PERIOD_S,
};
use crate::{VirtType, xml::Xml};
use uuid::Uuid;

/// PCIe root ports: those that the devices below take, and 16 to spare.
const ROOT_PORTS: usize = 24;
/// Slots for hot-plugged memory.
const MEMORY_SLOTS: &str = "16";

/// A domain to define.
#[derive(Debug, Clone)]
pub struct DomainSpec {
    /// Its UUID, which is the VM's id.
    pub id: Uuid,
    /// libvirt's name for it.
    pub name: String,
    /// KVM or TCG.
    pub virt_type: VirtType,
    /// Virtual CPUs at boot.
    pub vcpus: u32,
    /// Virtual CPUs that hot-plug may reach.
    pub max_vcpus: u32,
    /// Memory at boot, in MiB.
    pub memory_mib: u64,
    /// Memory that hot-plug may reach, in MiB.
    pub max_memory_mib: u64,
    /// The system disk, `vda`.
    pub system_disk: SystemDisk,
    /// For UEFI: the path of its NVRAM, which libvirt makes at the first start. `None`: BIOS.
    pub nvram: Option<String>,
    /// The path of the NoCloud seed, `sda`.
    pub seed: Option<String>,
    /// The path of the ISO image in its CD-ROM drive, `sdb`; the drive is there without one, too.
    pub iso: Option<String>,
    /// What it boots from, in this order.
    pub boot: Vec<BootDevice>,
    /// Network interfaces.
    pub nics: Vec<NicSpec>,
    /// Where the serial line's output is kept on the node.
    pub serial_log: String,
    /// QEMU's VNC password (8 characters at most), which has expired from the start.
    pub vnc_password: String,
    /// What goes into `<metadata>`; its name is also the title.
    pub metadata: Metadata,
}

/// The system disk of a domain to define.
#[derive(Debug, Clone)]
pub struct SystemDisk {
    /// Where it is on the node.
    pub path: String,
    /// `qcow2` or `raw`.
    pub format: String,
    /// What the guest sees as the disk's serial number (20 characters at most).
    pub serial: String,
}

/// A network interface of a domain to define.
#[derive(Debug, Clone)]
pub struct NicSpec {
    /// The libvirt network's name.
    pub network: String,
    /// The hardware address.
    pub mac: String,
    /// Whether its link is up.
    pub link_up: bool,
}

impl DomainSpec {
    /// The domain's XML, or the first character that XML can't hold.
    pub fn to_xml(&self) -> Result<String, char> {
        let mut xml = Xml::new();
        xml.nest("domain", &[("type", self.virt_type.as_str())], |xml| {
            xml.text("name", &[], &self.name);
            xml.text("uuid", &[], &self.id.to_string());
            xml.text("title", &[], &self.metadata.name);
            xml.nest("metadata", &[], |xml| self.metadata.write(xml));
            self.write_size(xml);
            self.write_os(xml);
            xml.nest("features", &[], |xml| {
                xml.empty("acpi", &[]);
                xml.empty("apic", &[]);
            });
            self.write_cpu(xml);
            xml.nest("clock", &[("offset", "utc")], |xml| {
                xml.empty("timer", &[("name", "rtc"), ("tickpolicy", "catchup")]);
                xml.empty("timer", &[("name", "pit"), ("tickpolicy", "delay")]);
                xml.empty("timer", &[("name", "hpet"), ("present", "no")]);
            });
            xml.text("on_poweroff", &[], "destroy");
            xml.text("on_reboot", &[], "restart");
            xml.text("on_crash", &[], "destroy");
            xml.nest("pm", &[], |xml| {
                xml.empty("suspend-to-mem", &[("enabled", "no")]);
                xml.empty("suspend-to-disk", &[("enabled", "no")]);
            });
            xml.nest("devices", &[], |xml| self.write_devices(xml));
        });
        xml.finish()
    }

    fn write_os(&self, xml: &mut Xml) {
        let kind = |xml: &mut Xml| xml.text("type", &[("arch", "x86_64"), ("machine", "q35")], "hvm");
        let Some(nvram) = &self.nvram else { return xml.nest("os", &[], kind) };
        // libvirt finds the image by the descriptors of the node's firmware packages, at each start. Without Secure
        // Boot: most templates aren't signed for it.
        xml.nest("os", &[("firmware", "efi")], |xml| {
            kind(xml);
            xml.nest("firmware", &[], |xml| xml.empty("feature", &[("enabled", "no"), ("name", "secure-boot")]));
            xml.text("nvram", &[], nvram);
        });
    }

    fn write_size(&self, xml: &mut Xml) {
        let memory = self.memory_mib.to_string();
        if self.max_memory_mib > self.memory_mib {
            let max = self.max_memory_mib.to_string();
            xml.text("maxMemory", &[("slots", MEMORY_SLOTS), ("unit", "MiB")], &max);
        }
        xml.text("memory", &[("unit", "MiB")], &memory);
        xml.text("currentMemory", &[("unit", "MiB")], &memory);
        let (now, max) = (self.vcpus.to_string(), self.max_vcpus.to_string());
        xml.text("vcpu", &[("placement", "static"), ("current", &now)], &max);
    }

    fn write_cpu(&self, xml: &mut Xml) {
        let mode = match self.virt_type {
            VirtType::Kvm => "host-passthrough",
            // The best that TCG can do: without it EL9 and its like refuse to boot (x86-64-v2).
            VirtType::Qemu => "maximum",
        };
        xml.nest("cpu", &[("mode", mode)], |xml| {
            if self.max_memory_mib > self.memory_mib {
                let (cpus, memory) = (format!("0-{}", self.max_vcpus - 1), self.memory_mib.to_string());
                xml.nest("numa", &[], |xml| {
                    xml.empty("cell", &[("id", "0"), ("cpus", &cpus), ("memory", &memory), ("unit", "MiB")]);
                });
            }
        });
    }

    /// Where a kind of device stands in the boot order.
    fn place(&self, device: BootDevice) -> Option<String> {
        let at = self.boot.iter().position(|one| *one == device)?;
        Some((at + 1).to_string())
    }

    fn write_devices(&self, xml: &mut Xml) {
        xml.empty("controller", &[("type", "pci"), ("index", "0"), ("model", "pcie-root")]);
        for index in 1..=ROOT_PORTS {
            xml.empty("controller", &[("type", "pci"), ("index", &index.to_string()), ("model", "pcie-root-port")]);
        }
        let disk = &self.system_disk;
        write_disk(xml, &disk.path, &disk.format, "vda", &disk.serial, self.place(BootDevice::Disk).as_deref());
        // The seed is on SCSI: Debian's cloud kernel has no driver for SATA, and `vdb` stays the first data volume.
        xml.empty("controller", &[("type", "scsi"), ("index", "0"), ("model", "virtio-scsi")]);
        if let Some(seed) = &self.seed {
            write_drive(xml, SEED_DRIVE, Some(seed), None);
        }
        write_drive(xml, DRIVE, self.iso.as_deref(), self.place(BootDevice::Cdrom).as_deref());
        for (position, nic) in self.nics.iter().enumerate() {
            let place = self.place(BootDevice::Network).filter(|_| position == 0);
            write_nic(xml, nic, place.as_deref());
        }
        xml.nest("serial", &[("type", "pty")], |xml| {
            xml.empty("log", &[("file", &self.serial_log), ("append", "on")]);
            xml.empty("target", &[("port", "0")]);
        });
        xml.nest("console", &[("type", "pty")], |xml| xml.empty("target", &[("type", "serial"), ("port", "0")]));
        xml.nest("channel", &[("type", "unix")], |xml| {
            xml.empty("target", &[("type", "virtio"), ("name", "org.qemu.guest_agent.0")]);
        });
        xml.empty("input", &[("type", "tablet"), ("bus", "virtio")]);
        let vnc =
            [("type", "vnc"), ("autoport", "yes"), ("passwd", self.vnc_password.as_str()), ("passwdValidTo", EXPIRED)];
        // Without an address it is `vnc_listen` of the node's qemu.conf, which is 127.0.0.1 unless somebody says otherwise.
        xml.nest("graphics", &vnc, |xml| xml.empty("listen", &[("type", "address")]));
        xml.nest("video", &[], |xml| xml.empty("model", &[("type", "vga")]));
        xml.nest("memballoon", &[("model", "virtio")], |xml| {
            xml.empty("stats", &[("period", &BALLOON_PERIOD_S.to_string())])
        });
        xml.nest("rng", &[("model", "virtio")], |xml| xml.text("backend", &[("model", "random")], "/dev/urandom"));
    }
}

/// A disk that is a file. Its format is always said: a guest could write a qcow2 header into a raw image and so read any
/// file.
pub(super) fn write_disk(xml: &mut Xml, path: &str, format: &str, target: &str, serial: &str, boot: Option<&str>) {
    xml.nest("disk", &[("type", "file"), ("device", "disk")], |xml| {
        xml.empty("driver", &[("name", "qemu"), ("type", format), ("discard", "unmap")]);
        xml.empty("source", &[("file", path)]);
        xml.empty("target", &[("dev", target), ("bus", "virtio")]);
        xml.text("serial", &[], serial);
        if let Some(order) = boot {
            xml.empty("boot", &[("order", order)]);
        }
    });
}

/// An interface on a libvirt network.
pub(super) fn write_nic(xml: &mut Xml, nic: &NicSpec, boot: Option<&str>) {
    xml.nest("interface", &[("type", "network")], |xml| {
        xml.empty("mac", &[("address", &nic.mac)]);
        xml.empty("source", &[("network", &nic.network)]);
        xml.empty("model", &[("type", "virtio")]);
        if !nic.link_up {
            xml.empty("link", &[("state", "down")]);
        }
        if let Some(order) = boot {
            xml.empty("boot", &[("order", order)]);
        }
    });
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::{DomainView, TemplateRef};

    pub(crate) fn example() -> DomainSpec {
        let id = Uuid::from_u128(0x6f1f_3c1e_8a0b_4a7e_9d55_0000_0000_0001);
        DomainSpec {
            id,
            name: "web-6f1f3c1e".into(),
            virt_type: VirtType::Qemu,
            vcpus: 1,
            max_vcpus: 4,
            memory_mib: 256,
            max_memory_mib: 1024,
            system_disk: SystemDisk {
                path: "/pool/a'b<c>.qcow2".into(),
                format: "qcow2".into(),
                serial: "0193".into(),
            },
            nvram: Some("/pool/x.nvram.fd".into()),
            seed: Some("/seeds/x.iso".into()),
            iso: Some("/pool/install.iso".into()),
            boot: vec![BootDevice::Disk, BootDevice::Cdrom, BootDevice::Network],
            nics: vec![NicSpec { network: "default".into(), mac: "52:54:00:00:00:01".into(), link_up: true }],
            serial_log: "/seeds/x.serial.log".into(),
            vnc_password: "abcdefgh".into(),
            metadata: Metadata {
                name: "web".into(),
                created_at: 1_700_000_000_123,
                template: Some(TemplateRef { id, name: "tiny".into() }),
                system_volume: Some(id),
                user: Some("tiny".into()),
                description: "a \"quoted\" & <marked>\ntext".into(),
                tags: [("role".to_owned(), "web & <db>".to_owned())].into(),
            },
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let spec = example();
        let view = DomainView::parse(&spec.to_xml().unwrap()).unwrap();
        assert_eq!(view.uuid, spec.id);
        assert_eq!(view.name, spec.name);
        assert_eq!(view.title.as_deref(), Some("web"));
        assert_eq!((view.vcpus, view.max_vcpus), (1, 4));
        assert_eq!((view.memory_mib, view.max_memory_mib), (256, 1024));
        assert_eq!(view.disks[0].path.as_deref(), Some("/pool/a'b<c>.qcow2"));
        assert_eq!(view.disks[0].target, "vda");
        assert!(view.uefi);
        assert_eq!((view.seed(), view.iso()), (spec.seed.as_deref(), spec.iso.as_deref()));
        assert_eq!(view.boot, spec.boot);
        assert_eq!(view.nics[0].mac, "52:54:00:00:00:01");
        assert_eq!(view.nics[0].network.as_deref(), Some("default"));
        assert_eq!(view.metadata, Some(spec.metadata));
    }

    #[test]
    fn control_characters_are_refused() {
        let mut spec = example();
        spec.metadata.description = "bell \u{7}".into();
        assert_eq!(spec.to_xml(), Err('\u{7}'));
    }

    /// libvirt's own schema, through its test driver.
    #[test]
    fn libvirt_accepts_it() {
        let connection = libvirt::Connect::open("test:///default").unwrap();
        let xml = example().to_xml().unwrap().replace("type=\"qemu\"", "type=\"test\"");
        // The test driver has neither CPU models nor the panel of devices of QEMU; the schema is what counts.
        match connection.define_domain(&xml, libvirt::flags::DEFINE_VALIDATE) {
            Ok(domain) => domain.undefine(0).unwrap(),
            Err(error) => assert!(!error.message.contains("XML document failed to validate"), "{error}"),
        }
    }
}
