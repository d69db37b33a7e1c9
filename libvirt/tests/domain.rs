//! Domains.
#![allow(clippy::unwrap_used)]

mod common;

use common::{domain_xml, shared};
use libvirt::{AddressSource, DomainState, ErrorCode, flags};

#[test]
fn lives_from_definition_to_undefinition() {
    let conn = shared();
    let domain = conn.define_domain(&domain_xml("life"), 0).unwrap();
    assert_eq!((domain.name().as_str(), domain.id()), ("life", None));
    assert_eq!((domain.is_active().unwrap(), domain.is_persistent().unwrap()), (false, true));
    assert_eq!(domain.state().unwrap().0, DomainState::Shutoff);
    assert_eq!(conn.domain_by_uuid(domain.uuid()).unwrap().name(), "life");

    domain.start(0).unwrap();
    assert_eq!(domain.state().unwrap(), (DomainState::Running, flags::REASON_RUNNING_BOOTED));
    assert!(domain.id().is_some());
    assert!(domain.start(0).is_err(), "it is on");
    let info = domain.info().unwrap();
    assert_eq!((info.state, info.max_mem_kib, info.vcpus), (DomainState::Running, 65536, 2));
    domain.suspend().unwrap();
    assert_eq!(domain.state().unwrap(), (DomainState::Paused, flags::REASON_PAUSED_USER));
    domain.resume().unwrap();
    domain.reboot(0).unwrap();
    domain.shutdown(0).unwrap();
    assert_eq!(domain.state().unwrap(), (DomainState::Shutoff, flags::REASON_SHUTOFF_SHUTDOWN));
    domain.start(0).unwrap();
    domain.destroy(0).unwrap();
    assert_eq!(domain.destroy(0).unwrap_err().code, ErrorCode::OPERATION_INVALID);

    domain.undefine(0).unwrap();
    assert_eq!(domain.start(0).unwrap_err().code, ErrorCode::NO_DOMAIN, "the handle outlives the domain");
    assert_eq!(domain.name(), "life");
    assert_eq!(conn.domain_by_name("life").unwrap_err().code, ErrorCode::NO_DOMAIN);
}

#[test]
fn lists_by_flags() {
    let conn = shared();
    let off = conn.define_domain(&domain_xml("list-off"), 0).unwrap();
    let on = conn.create_domain(&domain_xml("list-on"), 0).unwrap();
    let names = |flags| conn.domains(flags).unwrap().iter().map(|d| d.name()).collect::<Vec<_>>();
    let has = |flags, name: &str| names(flags).contains(&name.to_owned());
    assert!(has(0, "list-off") && has(0, "list-on") && has(0, "test"));
    assert!(!has(flags::LIST_DOMAINS_ACTIVE, "list-off") && has(flags::LIST_DOMAINS_ACTIVE, "list-on"));
    assert!(has(flags::LIST_DOMAINS_TRANSIENT, "list-on") && !has(flags::LIST_DOMAINS_TRANSIENT, "list-off"));
    assert!(!on.is_persistent().unwrap());
    on.destroy(0).unwrap();
    off.undefine(0).unwrap();
    assert!(!has(0, "list-off") && !has(0, "list-on"));
}

#[test]
fn metadata_goes_in_and_out() {
    let conn = shared();
    let domain = conn.define_domain(&domain_xml("meta"), flags::DEFINE_VALIDATE).unwrap();
    let (uri, on) = ("https://example.org/x", flags::AFFECT_CONFIG);
    assert_eq!(domain.metadata(uri, on).unwrap(), None);
    domain.set_metadata(Some("<vm owner='ä &amp; b'><tag/></vm>"), "x", uri, on).unwrap();
    let xml = domain.metadata(uri, on).unwrap().unwrap();
    // libvirt writes what is not ASCII as character references.
    assert!(xml.contains("owner=\"&#xE4; &amp; b\"") && xml.contains("<tag/>"), "{xml}");
    assert!(domain.xml(flags::XML_INACTIVE).unwrap().contains("<x:vm xmlns:x=\"https://example.org/x\""));
    domain.set_metadata(None, "x", uri, on).unwrap();
    assert_eq!(domain.metadata(uri, on).unwrap(), None);
    assert_eq!(domain.title(on).unwrap(), None);
    domain.set_title(Some("Ein Titel"), on).unwrap();
    domain.set_description(Some("two\nlines"), on).unwrap();
    assert_eq!(domain.title(on).unwrap().as_deref(), Some("Ein Titel"));
    assert_eq!(domain.description(on).unwrap().as_deref(), Some("two\nlines"));
    assert_eq!(domain.set_title(Some("two\nlines"), on).unwrap_err().code, ErrorCode::INVALID_ARG);
    domain.set_title(None, on).unwrap();
    assert_eq!(domain.title(on).unwrap(), None);
    domain.undefine(0).unwrap();
    assert_eq!(domain.metadata(uri, on).unwrap_err().code, ErrorCode::NO_DOMAIN);
}

#[test]
fn passwords_need_xml_secure() {
    let conn = shared();
    let domain = conn.define_domain(&domain_xml("secure"), 0).unwrap();
    assert!(!domain.xml(flags::XML_INACTIVE).unwrap().contains("secret"));
    assert!(domain.xml(flags::XML_INACTIVE | flags::XML_SECURE).unwrap().contains("passwd='secret'"));
    domain.undefine(0).unwrap();
}

#[test]
fn sizes_change() {
    let conn = shared();
    let domain = conn.define_domain(&domain_xml("sizes"), 0).unwrap();
    domain.set_vcpus(4, flags::AFFECT_CONFIG | flags::VCPU_MAXIMUM).unwrap();
    domain.set_vcpus(3, flags::AFFECT_CONFIG).unwrap();
    assert_eq!(domain.vcpus(flags::AFFECT_CONFIG).unwrap(), 3);
    assert_eq!(domain.vcpus(flags::AFFECT_CONFIG | flags::VCPU_MAXIMUM).unwrap(), 4);
    assert_eq!(domain.set_vcpus(5, flags::AFFECT_CONFIG).unwrap_err().code, ErrorCode::INVALID_ARG);
    domain.set_memory(32768, flags::AFFECT_CONFIG).unwrap();
    assert!(domain.xml(flags::XML_INACTIVE).unwrap().contains("<currentMemory unit='KiB'>32768<"));
    domain.set_autostart(true).unwrap();
    assert!(domain.autostart().unwrap());
    domain.rename("sizes2").unwrap();
    assert_eq!((domain.name().as_str(), conn.domain_by_name("sizes2").is_ok()), ("sizes", true));
    domain.undefine(0).unwrap();
}

#[test]
fn a_running_domain_tells_of_itself() {
    let conn = shared();
    let domain = conn.create_domain(&domain_xml("tells"), 0).unwrap();
    let tags: Vec<i32> = domain.memory_stats().unwrap().iter().map(|(tag, _)| *tag).collect();
    assert!(tags.contains(&flags::MEMORY_STAT_ACTUAL_BALLOON), "{tags:?}");
    let info = domain.block_info("vda").unwrap();
    assert!(info.capacity > 0, "{info:?}");
    assert!(domain.block_stats("vda").unwrap().read_bytes.is_some());
    assert_eq!(domain.block_info("vdz").unwrap_err().code, ErrorCode::INVALID_ARG);
    let interfaces = domain.interface_addresses(AddressSource::Lease).unwrap();
    let interface = interfaces.first().unwrap();
    assert_eq!(interface.mac.as_deref(), Some("52:54:00:11:22:33"));
    assert_eq!(interface.addresses.len(), 1, "{interface:?}");
    domain.send_key(flags::KEYCODE_LINUX, 10, &[29, 56, 111]).unwrap();
    assert!(domain.send_key(flags::KEYCODE_LINUX, 10, &[1; 17]).is_err());
    assert!(domain.fs_freeze().unwrap() > 0);
    assert!(domain.fs_thaw().unwrap() > 0);
    domain.set_user_password("root", "x", 0).unwrap();
    assert_eq!(domain.agent_command("{}", 1, 0).unwrap_err().code, ErrorCode::NO_SUPPORT);
    assert_eq!(domain.guest_info(0).unwrap_err().code, ErrorCode::NO_SUPPORT);
    domain.destroy(0).unwrap();
}

#[test]
fn saves_and_restores() {
    let conn = shared();
    let domain = conn.define_domain(&domain_xml("saves"), 0).unwrap();
    domain.start(0).unwrap();
    let path = std::env::temp_dir().join(format!("libvirt-test-{}.save", std::process::id()));
    let path = path.to_str().unwrap();
    domain.save(path, None, 0).unwrap();
    assert_eq!(domain.state().unwrap(), (DomainState::Shutoff, flags::REASON_SHUTOFF_SAVED));
    conn.restore_domain(path, None, 0).unwrap();
    assert!(domain.is_active().unwrap());
    std::fs::remove_file(path).unwrap();
    domain.managed_save(0).unwrap();
    assert!(domain.has_managed_save().unwrap());
    domain.managed_save_remove().unwrap();
    assert!(!domain.has_managed_save().unwrap());
    domain.undefine(0).unwrap();
    assert_eq!(conn.restore_domain("/nowhere", None, 0).unwrap_err().code, ErrorCode::SYSTEM_ERROR);
}

#[test]
fn snapshots_are_counted() {
    let conn = shared();
    let domain = conn.define_domain(&domain_xml("snaps"), 0).unwrap();
    assert_eq!(domain.snapshot_count().unwrap(), 0);
    domain.snapshot_create_xml("<domainsnapshot><name>one</name></domainsnapshot>", 0).unwrap();
    assert_eq!(domain.snapshot_count().unwrap(), 1);
    assert_eq!(domain.undefine(0).unwrap_err().code, ErrorCode::OPERATION_INVALID);
    domain.undefine(flags::UNDEFINE_SNAPSHOTS_METADATA).unwrap();
}

#[test]
fn statistics_are_named_values() {
    let conn = shared();
    let domain = conn.create_domain(&domain_xml("stats"), 0).unwrap();
    let all = conn.domain_stats(flags::STATS_STATE, flags::STATS_ONLY_ACTIVE).unwrap();
    let ours = all.iter().find(|stats| stats.name == "stats").unwrap();
    assert_eq!(ours.uuid, domain.uuid());
    assert_eq!(ours.get("state.state").unwrap().as_u64(), Some(1));
    assert_eq!(ours.get("state.state").unwrap().as_str(), None);
    assert_eq!(ours.get("nothing"), None);
    let one = domain.stats(flags::STATS_STATE).unwrap().unwrap();
    assert_eq!(&one, ours);
    domain.destroy(0).unwrap();
}
