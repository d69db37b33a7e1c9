//! Networks.
#![allow(clippy::unwrap_used)]

mod common;

use common::shared;
use libvirt::{ErrorCode, flags};

const XML: &str = "<network><name>net-life</name><bridge name='virbr7'/><forward mode='nat'/>\
    <ip address='192.0.2.1' netmask='255.255.255.0'><dhcp><range start='192.0.2.10' end='192.0.2.99'/></dhcp></ip>\
    </network>";

#[test]
fn a_network_lives_from_definition_to_undefinition() {
    let conn = shared();
    let network = conn.define_network(XML).unwrap();
    assert_eq!((network.is_active().unwrap(), network.is_persistent().unwrap()), (false, true));
    network.start().unwrap();
    assert_eq!(network.start().unwrap_err().code, ErrorCode::OPERATION_INVALID);
    assert_eq!(network.bridge_name().unwrap().as_deref(), Some("virbr7"));
    assert_eq!(conn.network_by_uuid(network.uuid()).unwrap().name(), "net-life");
    assert!(conn.networks(flags::LIST_NETWORKS_ACTIVE).unwrap().iter().any(|n| n.name() == "net-life"));
    network.set_autostart(true).unwrap();
    assert!(network.autostart().unwrap());
    network.clone().destroy().unwrap();
    network.undefine().unwrap();
    assert_eq!(network.is_active().unwrap_err().code, ErrorCode::NO_NETWORK);
    assert_eq!(conn.network_by_name("net-life").unwrap_err().code, ErrorCode::NO_NETWORK);
}

#[test]
fn a_section_of_a_network_is_updated() {
    let conn = shared();
    let network = conn.define_network(&XML.replace("net-life", "net-update").replace("virbr7", "virbr8")).unwrap();
    let host = "<host mac='52:54:00:00:00:01' name='a' ip='192.0.2.5'/>";
    let (add, section) = (flags::NETWORK_UPDATE_ADD_LAST, flags::NETWORK_SECTION_IP_DHCP_HOST);
    network.update(add, section, -1, host, flags::AFFECT_CONFIG).unwrap();
    assert!(network.xml(0).unwrap().contains("192.0.2.5"));
    let twice = network.update(add, section, -1, host, flags::AFFECT_CONFIG).unwrap_err();
    assert_eq!(twice.code, ErrorCode::OPERATION_INVALID, "{twice}");
    network.update(flags::NETWORK_UPDATE_DELETE, section, -1, host, flags::AFFECT_CONFIG).unwrap();
    assert!(!network.xml(0).unwrap().contains("192.0.2.5"));
    network.undefine().unwrap();
}
