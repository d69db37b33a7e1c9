//! What others put into a definition stays, whatever of the hardware is changed.

use crate::{
    lab::{Lab, TestVm},
    modify::{definition, describe, domain, modify, refused},
};
use serde_json::{Value, json};
use std::fs;

/// What others have put in, and stays. Comments stay where libvirt keeps them itself, in the metadata.
const KEPT: [&str; 8] = [
    "<cputune>",
    "<nosharepages/>",
    "<a:e>f</a:e>",
    "<!-- a word -->",
    "bus='usb'",
    "VMYARD_TEST",
    "passwd='",
    "passwdValidTo=",
];
/// What a domain can't be started with where there are no such pages.
const HUGE: &str = "    <hugepages/>\n";

/// A definition without what a change of size, name, tags and description is about.
fn rest(xml: &str) -> String {
    // libvirt puts our element behind the others.
    const END: &str = "</vmyard:vm>\n";
    let ours = xml.find("    <vmyard:vm").unwrap()..xml.find(END).unwrap() + END.len();
    let mut xml = xml.to_owned();
    xml.replace_range(ours, "");
    let sizes = ["<title>", "<memory ", "<currentMemory ", "<maxMemory ", "<vcpu ", "<cell "];
    let lines = xml.lines().filter(|line| !sizes.iter().any(|size| line.trim_start().starts_with(size)));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn what_others_put_into_the_domain_stays() {
    let lab = Lab::own();
    let vm = lab.create_with("rich", json!({"max_vcpus": 2, "max_memory_mib": 256}));
    let rich = definition(&lab, domain(&vm))
        .replace("  <vcpu ", &format!("  <memoryBacking>\n{HUGE}    <nosharepages/>\n  </memoryBacking>\n  <vcpu "))
        .replace(
            "  <os>",
            "  <cputune>\n    <shares>512</shares>\n    <vcpupin vcpu='0' cpuset='0'/>\n  </cputune>\n  <os>",
        )
        .replace(
            "  </metadata>",
            "    <a:b xmlns:a=\"urn:other\" c=\"&lt;d&gt;\"><!-- a word --><a:e>f</a:e></a:b>\n  </metadata>",
        )
        .replace(
            "  </devices>",
            "    <serial type='null'/>\n    <controller type='usb' model='qemu-xhci'/>\n    \
             <input type='tablet' bus='usb'/>\n  </devices>\n  \
             <qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n    \
             <qemu:env name='VMYARD_TEST' value='1'/>\n  </qemu:commandline>",
        );
    let file = lab.dir.path.join("rich.xml");
    fs::write(&file, rich).unwrap();
    lab.node.virsh(&["define", file.to_str().unwrap()]);
    lab.node.virsh(&["autostart", domain(&vm)]);
    let change = |vm: &TestVm, step: u64| {
        let before = definition(&lab, domain(vm));
        for kept in KEPT {
            assert!(before.contains(kept), "{kept}: {before}");
        }
        let name = lab.name("richer");
        let more = json!({"name": name, "vcpus": 2 + step, "memory_mib": 256 + 32 * step, "tags": {"step": name},
            "description": name});
        modify(vm, more);
        let after = definition(&lab, domain(vm));
        assert_eq!(rest(&after), rest(&before));
        assert_ne!(after, before);
        // There and back, nothing is another: not even in what libvirt keeps beside.
        let back = json!({"vcpus": 1, "memory_mib": 128});
        modify(vm, back);
        assert_eq!(rest(&definition(&lab, domain(vm))), rest(&before));
        assert!(lab.node.virsh(&["dominfo", domain(vm)]).contains("enable"), "autostart");
    };
    change(&vm, 0);
    there_and_back(&lab, &vm);
    let huge = definition(&lab, domain(&vm));
    assert!(huge.contains(HUGE), "{huge}");
    fs::write(&file, huge.replace(HUGE, "")).unwrap();
    lab.node.virsh(&["define", file.to_str().unwrap()]);
    lab.ok("start-vm", json!({"vm": vm.id}));
    change(&vm, 1);
    there_and_back(&lab, &vm);
    // A running one's own XML has the new name and tags, and all else.
    let before = lab.node.virsh(&["dumpxml", domain(&vm)]);
    modify(&vm, json!({"name": lab.name("live"), "tags": {"a": "b"}}));
    let after = lab.node.virsh(&["dumpxml", domain(&vm)]);
    assert_eq!(rest(&after), rest(&before));
    // What isn't understood is left alone.
    lab.ok("stop-vm", json!({"vm": vm.id, "force": true}));
    let listed = definition(&lab, domain(&vm)).replace(
        "  <cputune>",
        "  <vcpus><vcpu id='0' enabled='yes' hotpluggable='no'/><vcpu id='1' enabled='no' hotpluggable='yes'/>\
         <vcpu id='2' enabled='no' hotpluggable='yes'/></vcpus><cputune>",
    );
    fs::write(&file, listed).unwrap();
    lab.node.virsh(&["define", file.to_str().unwrap()]);
    let problem = refused(&vm, json!({"vcpus": 2, "name": "never"}), 422, "unsupported");
    assert!(problem["hint"].as_str().unwrap().starts_with("virsh edit "), "{problem}");
    modify(&vm, json!({"memory_mib": 192}));
}

/// Every other change of the hardware and its opposite: the definition is as it was, to the byte.
fn there_and_back(lab: &Lab, vm: &TestVm) {
    let iso = format!("{}.iso", lab.name("rich"));
    fs::write(lab.node.dir.join("pools/default").join(&iso), crate::isos::image::installer()).unwrap();
    lab.node.virsh(&["pool-refresh", "default"]);
    // libvirt writes down that a link is up when somebody has said so.
    let plain = || definition(lab, domain(vm)).replace("      <link state='up'/>\n", "");
    let before = plain();
    let with_id = |mut body: Value| {
        body["vm"] = json!(vm.id);
        body
    };
    let mac = describe(vm)["networks"][0]["mac"].clone();
    let pairs = [
        ("modify-nic", json!({"mac": mac, "link": "down"}), json!({"mac": mac, "link": "up"})),
        ("modify-vm-spec", json!({"boot_order": ["cdrom", "network", "disk"]}), json!({"boot_order": ["disk"]})),
        ("modify-disk", json!({"device": "vda", "read_iops": 5000}), json!({"device": "vda", "read_iops": 0})),
    ];
    for (method, there, _) in &pairs {
        lab.ok(method, with_id(there.clone()));
    }
    lab.ok("attach-iso", with_id(json!({"iso": iso})));
    let between = definition(lab, domain(vm));
    for kept in KEPT {
        assert!(between.contains(kept), "{kept}: {between}");
    }
    lab.ok("eject-iso", with_id(json!({})));
    for (method, _, back) in pairs {
        lab.ok(method, with_id(back));
    }
    assert_eq!(plain(), before);
    if describe(vm)["state"] == "shutoff" {
        let added = lab.ok("attach-network", with_id(json!({"network": "default"})));
        lab.ok("detach-network", with_id(json!({"mac": added["nic"]["mac"]})));
        assert_eq!(plain(), before);
    }
}
