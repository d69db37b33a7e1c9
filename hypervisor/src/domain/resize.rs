//! Another size in a domain's definition: its XML is edited where the sizes stand, and nowhere else.
//!
//! One definition instead of up to four of libvirt's setters: it is taken whole or not at all, so is its undo, and the
//! setters can change neither the memory of a domain with a NUMA cell nor take a raised maximum of its CPUs back. What
//! stands beside the sizes stays as libvirt wrote it, byte by byte.

use super::edits::{Edits, child};
use roxmltree::{Document, Node};
use serde::{Deserialize, Serialize};

/// The sizes in a domain's definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Virtual CPUs at boot.
    pub vcpus: u32,
    /// Virtual CPUs that hot-plug may reach.
    pub max_vcpus: u32,
    /// Memory at boot, in KiB.
    pub memory_kib: u64,
    /// What the balloon leaves of it, in KiB.
    pub current_kib: u64,
    /// What hot-plug may reach; `None` where there is no headroom.
    pub headroom: Option<Headroom>,
}

/// What hot-plug may reach (`<maxMemory>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headroom {
    /// Memory with all that is plugged, in KiB.
    pub kib: u64,
    /// Memory modules.
    pub slots: u32,
}

impl Sizes {
    /// Reads those of a `<domain>` as libvirt writes it.
    pub(super) fn read(domain: Node<'_, '_>) -> Option<Sizes> {
        let vcpu = child(domain, "vcpu")?;
        let max_vcpus = number(vcpu)?;
        let memory_kib = kib(child(domain, "memory")?)?;
        let headroom = |node: Node<'_, '_>| {
            Some(Headroom { kib: kib(node)?, slots: node.attribute("slots").and_then(|slots| slots.parse().ok())? })
        };
        Some(Sizes {
            vcpus: vcpu.attribute("current").and_then(|current| current.parse().ok()).unwrap_or(max_vcpus),
            max_vcpus,
            memory_kib,
            current_kib: child(domain, "currentMemory").and_then(kib).unwrap_or(memory_kib),
            headroom: child(domain, "maxMemory").and_then(headroom),
        })
    }
}

/// The memory modules of a `<domain>`, in KiB each.
pub(super) fn modules(domain: Node<'_, '_>) -> Vec<u64> {
    let devices = child(domain, "devices").into_iter().flat_map(|devices| devices.children());
    let size = |module: Node<'_, '_>| child(child(module, "target")?, "size").and_then(kib);
    devices.filter(|node| node.has_tag_name("memory")).filter_map(size).collect()
}

/// Whether there is one NUMA cell, in which all memory is: only such a domain takes memory modules.
pub(super) fn has_one_cell(domain: Node<'_, '_>) -> bool {
    cells(domain).len() == 1
}

/// The XML of a definition with other sizes, or why it can't have them.
pub(super) fn edit(xml: &str, to: &Sizes) -> Result<String, &'static str> {
    const UNKNOWN: &str = "its definition has sizes of a form that Vmyard doesn't know";
    let document = Document::parse(xml).map_err(|_| UNKNOWN)?;
    let domain = document.root_element();
    let from = Sizes::read(domain).ok_or(UNKNOWN)?;
    if from == *to {
        return Ok(xml.to_owned());
    }
    let mut edits = Edits::default();
    if (from.vcpus, from.max_vcpus) != (to.vcpus, to.max_vcpus) {
        if child(domain, "vcpus").is_some() {
            return Err("its definition lists its virtual CPUs one by one (<vcpus>)");
        }
        let vcpu = child(domain, "vcpu").ok_or(UNKNOWN)?;
        edits.text(vcpu, to.max_vcpus);
        edits.attribute(vcpu, "current", to.vcpus);
    }
    let cells = cells(domain);
    if from.max_vcpus != to.max_vcpus && !cells.is_empty() {
        let all = |count: u32| if count == 1 { "0".to_owned() } else { format!("0-{}", count - 1) };
        match cells[..] {
            [cell] if cell.attribute("cpus") == Some(&all(from.max_vcpus)) => {
                edits.attribute(cell, "cpus", all(to.max_vcpus));
            }
            _ => return Err("its virtual CPUs are divided among NUMA cells"),
        }
    }
    if from.memory_kib != to.memory_kib {
        if !modules(domain).is_empty() {
            return Err("its definition has memory modules");
        }
        match cells[..] {
            [] => {}
            [cell] if cell.attribute("memory") == Some(&from.memory_kib.to_string()) && in_kib(cell) => {
                edits.attribute(cell, "memory", to.memory_kib);
            }
            _ => return Err("its memory is divided among NUMA cells"),
        }
    }
    let memory = child(domain, "memory").ok_or(UNKNOWN)?;
    edits.text(memory, to.memory_kib);
    if let Some(current) = child(domain, "currentMemory") {
        edits.text(current, to.current_kib);
    }
    match (child(domain, "maxMemory"), to.headroom) {
        (Some(max), Some(headroom)) => edits.text(max, headroom.kib),
        (Some(max), None) => edits.remove(xml, max),
        (None, Some(Headroom { kib, slots })) => {
            let max = format!("<maxMemory slots='{slots}' unit='KiB'>{kib}</maxMemory>\n  ");
            edits.insert(memory.range().start, max);
        }
        (None, None) => {}
    }
    Ok(edits.apply(xml))
}

fn cells<'a, 'input>(domain: Node<'a, 'input>) -> Vec<Node<'a, 'input>> {
    let numa = child(domain, "cpu").and_then(|cpu| child(cpu, "numa"));
    numa.into_iter().flat_map(|numa| numa.children()).filter(|node| node.has_tag_name("cell")).collect()
}

fn number(node: Node<'_, '_>) -> Option<u32> {
    node.text()?.trim().parse().ok()
}

/// libvirt writes all sizes of memory in KiB.
fn kib(node: Node<'_, '_>) -> Option<u64> {
    node.text()?.trim().parse().ok().filter(|_| in_kib(node))
}

fn in_kib(node: Node<'_, '_>) -> bool {
    node.attribute("unit").is_none_or(|unit| unit == "KiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOT: &str = "<domain type='qemu'>
  <name>hot</name>
  <metadata><x:y xmlns:x=\"urn:x\">4</x:y></metadata>
  <maxMemory slots='16' unit='KiB'>1048576</maxMemory>
  <memory unit='KiB' dumpCore='off'>131072</memory>
  <currentMemory unit='KiB'>131072</currentMemory>
  <vcpu placement='static' current='1'>4</vcpu>
  <cpu mode='maximum' check='none'>
    <numa>
      <cell id='0' cpus='0-3' memory='131072' unit='KiB'/>
    </numa>
  </cpu>
  <devices><!-- memory 131072 --></devices>
</domain>
";

    fn read(xml: &str) -> Sizes {
        Sizes::read(Document::parse(xml).unwrap().root_element()).unwrap()
    }

    #[test]
    fn only_the_sizes_are_another() {
        let before = read(HOT);
        assert_eq!(before.headroom, Some(Headroom { kib: 1_048_576, slots: 16 }));
        let after = Sizes { vcpus: 6, max_vcpus: 6, memory_kib: 262_144, current_kib: 262_144, ..before };
        let edited = edit(HOT, &after).unwrap();
        let expected = HOT
            .replace("current='1'>4<", "current='6'>6<")
            .replace(">131072<", ">262144<")
            .replace("cpus='0-3' memory='131072'", "cpus='0-5' memory='262144'");
        assert_eq!(edited, expected);
        assert_eq!(read(&edited), after);
        assert_eq!(edit(&edited, &before).unwrap(), HOT);
        assert_eq!(edit(HOT, &before).unwrap(), HOT);
    }

    #[test]
    fn headroom_goes_and_comes_back() {
        let before = read(HOT);
        let after = Sizes { memory_kib: 1_048_576, current_kib: 1_048_576, headroom: None, ..before };
        let edited = edit(HOT, &after).unwrap();
        assert!(!edited.contains("maxMemory") && edited.contains("</metadata>\n  <memory "), "{edited}");
        assert_eq!(edit(&edited, &before).unwrap(), HOT);
    }

    #[test]
    fn a_domain_without_headroom() {
        let xml = "<domain><memory>1024</memory><currentMemory>1024</currentMemory><vcpu a='b'>1</vcpu></domain>";
        let before = read(xml);
        let after = Sizes { vcpus: 2, max_vcpus: 3, memory_kib: 2048, current_kib: 2048, headroom: None };
        let edited = edit(xml, &after).unwrap();
        assert_eq!(
            edited,
            "<domain><memory>2048</memory><currentMemory>2048</currentMemory><vcpu a='b' current='2'>3</vcpu></domain>"
        );
        assert_eq!(read(&edit(&edited, &before).unwrap()), before);
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        let before = read(HOT);
        let more_memory = Sizes { memory_kib: 262_144, ..before };
        let more_vcpus = Sizes { max_vcpus: 8, ..before };
        let two = HOT.replace("<numa>", "<numa><cell id='1' cpus='4' memory='1' unit='KiB'/>");
        assert!(edit(&two, &more_memory).unwrap_err().contains("NUMA"));
        assert!(edit(&two, &more_vcpus).unwrap_err().contains("NUMA"));
        let pinned = HOT.replace("cpus='0-3'", "cpus='0-1,3'");
        assert!(edit(&pinned, &more_vcpus).unwrap_err().contains("NUMA"));
        assert!(edit(&pinned, &more_memory).is_ok());
        let listed = HOT.replace("<cpu ", "<vcpus><vcpu id='0'/></vcpus><cpu ");
        assert!(edit(&listed, &more_vcpus).unwrap_err().contains("one by one"));
        let module = "<memory model='dimm'><target><size unit='KiB'>131072</size></target></memory>";
        let module = HOT.replace("<devices>", &format!("<devices>{module}"));
        assert!(edit(&module, &more_memory).unwrap_err().contains("modules"));
        assert!(edit(&HOT.replace("<memory unit='KiB'", "<memory unit='MiB'"), &more_memory).is_err());
        assert!(edit("<domain/>", &before).is_err());
    }
}
