//! What a node is: read once at each connect.

use libvirt::Connect;
use roxmltree::Document;
use uuid::Uuid;

/// How guests run on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VirtType {
    /// Hardware virtualisation.
    Kvm,
    /// Emulation (TCG).
    Qemu,
}

impl VirtType {
    /// The `type` of a domain of this kind.
    pub fn as_str(self) -> &'static str {
        match self {
            VirtType::Kvm => "kvm",
            VirtType::Qemu => "qemu",
        }
    }
}

/// What a node is.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The host's UUID.
    pub host_uuid: Uuid,
    /// Its name.
    pub hostname: String,
    /// Its CPU architecture, like `x86_64`.
    pub arch: String,
    /// Its libvirt: `major × 1,000,000 + minor × 1,000 + release`.
    pub libvirt_version: u64,
    /// Its QEMU, in the same form.
    pub qemu_version: u64,
    /// How guests run.
    pub virt_type: VirtType,
    /// Whether it has UEFI firmware for guests.
    pub uefi: bool,
    /// CPUs of the host.
    pub cpus: u32,
    /// Memory of the host, in MiB.
    pub memory_mib: u64,
}

/// Reads the facts. `wanted` overrides the choice between KVM and TCG; `local` allows a look at /proc/cpuinfo.
pub(crate) fn read(connection: &Connect, wanted: Option<VirtType>, local: bool) -> libvirt::Result<Facts> {
    let capabilities = connection.capabilities()?;
    let info = connection.node_info()?;
    // virNodeGetInfo caps the memory on some hosts; virNodeGetMemoryStats and /proc/meminfo agree.
    let memory_kib = connection
        .node_memory_stats()
        .ok()
        .and_then(|stats| stats.into_iter().find(|(name, _)| name == "total").map(|(_, kib)| kib))
        .unwrap_or(info.memory_kib);
    let cpuinfo = if local { std::fs::read_to_string("/proc/cpuinfo").ok() } else { None };
    let parsed = parse(&capabilities);
    let virt_type = wanted.unwrap_or(match parsed.kvm && (cpu_virtualises(&parsed, cpuinfo.as_deref())) {
        true => VirtType::Kvm,
        false => VirtType::Qemu,
    });
    // The test driver has none to tell.
    let guests = connection.domain_capabilities(None, Some("x86_64"), Some("q35"), Some(virt_type.as_str()));
    Ok(Facts {
        uefi: guests.is_ok_and(|xml| has_uefi(&xml)),
        host_uuid: parsed.host_uuid,
        hostname: connection.hostname()?,
        arch: parsed.arch,
        libvirt_version: connection.lib_version()?,
        qemu_version: connection.hypervisor_version().unwrap_or(0),
        virt_type,
        cpus: info.cpus,
        memory_mib: memory_kib / 1024,
    })
}

#[derive(Default)]
struct Capabilities {
    host_uuid: Uuid,
    arch: String,
    cpu_model: String,
    cpu_features: Vec<String>,
    kvm: bool,
}

fn parse(xml: &str) -> Capabilities {
    let Ok(document) = Document::parse(xml) else { return Capabilities::default() };
    let mut found = Capabilities::default();
    for node in document.descendants().filter(|node| node.is_element()) {
        let text = node.text().unwrap_or_default().trim();
        let parent = node.parent().map_or("", |parent| parent.tag_name().name());
        match (parent, node.tag_name().name()) {
            ("host", "uuid") => found.host_uuid = text.parse().unwrap_or_default(),
            ("cpu", "arch") => found.arch = text.to_owned(),
            ("cpu", "model") => found.cpu_model = text.to_owned(),
            ("cpu", "feature") => found.cpu_features.extend(node.attribute("name").map(str::to_owned)),
            ("arch", "domain") if node.attribute("type") == Some("kvm") => found.kvm = true,
            _ => {}
        }
    }
    found
}

/// Whether libvirt can choose UEFI firmware for a guest: <https://libvirt.org/formatdomaincaps.html>.
fn has_uefi(domain_capabilities: &str) -> bool {
    let Ok(document) = Document::parse(domain_capabilities) else { return false };
    let firmware = document.descendants().find(|node| node.attribute("name") == Some("firmware"));
    firmware.is_some_and(|firmware| firmware.children().any(|value| value.text() == Some("efi")))
}

/// Whether the host's CPU has virtualisation for guests of ours. On x86, `/dev/kvm` and libvirt's `type='kvm'` prove
/// nothing: a nested host without vmx or svm offers both, and guests hang under it.
fn cpu_virtualises(capabilities: &Capabilities, cpuinfo: Option<&str>) -> bool {
    if capabilities.arch != "x86_64" && capabilities.arch != "i686" {
        return true;
    }
    if let Some(cpuinfo) = cpuinfo {
        return cpuinfo
            .lines()
            .filter(|line| line.starts_with("flags"))
            .any(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"));
    }
    // A feature that the named model contains isn't listed: AMD's models contain svm.
    let model = capabilities.cpu_model.as_str();
    let in_model = ["EPYC", "Opteron_G", "Dhyana"].iter().any(|prefix| model.starts_with(prefix));
    in_model || capabilities.cpu_features.iter().any(|feature| feature == "vmx" || feature == "svm")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NESTED: &str = "<capabilities><host><uuid>78ce4a76-ca9f-4f09-87bc-c2eae59ce28c</uuid><cpu><arch>x86_64</arch>\
        <model>kvm64</model><feature name='aes'/></cpu></host>\
        <guest><arch name='x86_64'><domain type='qemu'/><domain type='kvm'/></arch></guest></capabilities>";

    #[test]
    fn uefi_is_what_libvirt_offers() {
        let with = |values: &str| {
            format!(
                "<domainCapabilities><os supported='yes'><enum name='firmware'>{values}</enum></os></domainCapabilities>"
            )
        };
        assert!(has_uefi(&with("<value>bios</value><value>efi</value>")));
        assert!(!has_uefi(&with("")));
        assert!(!has_uefi("nonsense"));
    }

    #[test]
    fn kvm_without_vmx_or_svm_is_not_usable() {
        let nested = parse(NESTED);
        assert!(nested.kvm);
        assert_eq!(nested.arch, "x86_64");
        assert!(!cpu_virtualises(&nested, None));
        assert!(!cpu_virtualises(&nested, Some("flags\t\t: fpu aes\n")));
        assert!(cpu_virtualises(&nested, Some("flags\t\t: fpu svm aes\n")));
        assert!(cpu_virtualises(&parse(&NESTED.replace("name='aes'", "name='vmx'")), None));
        assert!(cpu_virtualises(&parse(&NESTED.replace("kvm64", "EPYC-Milan")), None));
    }
}
