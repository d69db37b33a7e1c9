//! How a guest's interfaces are set up: cloud-init's network-config, version 2, which is Netplan's form.
//! <https://cloudinit.readthedocs.io/en/latest/reference/network-config-format-v2.html>

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The largest, in bytes of JSON.
const BYTES_MAX: usize = 65_536;
/// What [`device_names`] asks for, as the schema says it.
const DEVICE_PATTERN: &str = "^[A-Za-z0-9._:-]{1,63}$";

/// A network-config of version 2: what is below `network:` in Netplan's files. Addresses and types are checked; what a device has
/// beside is passed on as it is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// 2.
    #[garde(custom(check_version))]
    #[schemars(extend("const" = 2))]
    pub version: u64,
    /// What sets the interfaces up, where the guest has a choice: `networkd` or `NetworkManager`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub renderer: Option<Renderer>,
    /// Interfaces. One without `match` is the one that the guest calls so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[garde(custom(check_devices))]
    #[schemars(transform = device_names)]
    pub ethernets: BTreeMap<String, Map<String, Value>>,
    /// Interfaces that are several taken together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[garde(custom(check_devices))]
    #[schemars(transform = device_names)]
    pub bonds: BTreeMap<String, Map<String, Value>>,
    /// Bridges within the guest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[garde(custom(check_devices))]
    #[schemars(transform = device_names)]
    pub bridges: BTreeMap<String, Map<String, Value>>,
    /// VLANs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[garde(custom(check_devices))]
    #[schemars(transform = device_names)]
    pub vlans: BTreeMap<String, Map<String, Value>>,
}

impl Default for NetworkConfig {
    fn default() -> NetworkConfig {
        NetworkConfig {
            version: 2,
            renderer: None,
            ethernets: BTreeMap::new(),
            bonds: BTreeMap::new(),
            bridges: BTreeMap::new(),
            vlans: BTreeMap::new(),
        }
    }
}

/// What sets a guest's interfaces up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Renderer {
    /// systemd-networkd.
    #[serde(rename = "networkd")]
    Networkd,
    /// NetworkManager.
    NetworkManager,
}

/// Checks that there is something in it, and not too much.
pub(crate) fn check_size(value: &Option<NetworkConfig>, _: &()) -> garde::Result {
    let Some(value) = value else { return Ok(()) };
    if [&value.ethernets, &value.bonds, &value.bridges, &value.vlans].iter().all(|devices| devices.is_empty()) {
        return Err(garde::Error::new("names no interface, so the guest would have no network: leave it out for DHCP"));
    }
    let bytes = serde_json::to_string(value).map_or(usize::MAX, |text| text.len());
    match bytes {
        0..=BYTES_MAX => Ok(()),
        _ => Err(garde::Error::new(format!("must have at most {BYTES_MAX} bytes as JSON, has {bytes}"))),
    }
}

fn check_version(value: &u64, _: &()) -> garde::Result {
    match value {
        2 => Ok(()),
        1 => Err(garde::Error::new("must be 2: write it in the form of version 2, which Netplan has too; it is 1")),
        _ => Err(garde::Error::new(format!("must be 2, is {value}"))),
    }
}

/// What [`check_devices`] asks of names, as the schema says it.
fn device_names(schema: &mut schemars::Schema) {
    schema.insert("propertyNames".to_owned(), serde_json::json!({ "pattern": DEVICE_PATTERN }));
}

fn check_devices(devices: &BTreeMap<String, Map<String, Value>>, _: &()) -> garde::Result {
    for (name, device) in devices {
        let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-'));
        if !letters || !(1..=63).contains(&name.len()) {
            return Err(garde::Error::new(format!("{name:?} must have 1 to 63 of a-z, A-Z, 0-9, '.', '_', ':', '-'")));
        }
        check_device(device).map_err(|why| garde::Error::new(format!("{name}.{why}")))?;
    }
    Ok(())
}

/// Checks what cloud-init and Netplan would take without a word, and leave a guest without a network. The error begins with
/// the field's path within the device.
fn check_device(device: &Map<String, Value>) -> Result<(), String> {
    for field in ["dhcp4", "dhcp6", "optional", "accept-ra", "wakeonlan"] {
        if device.get(field).is_some_and(|value| !value.is_boolean()) {
            return Err(format!("{field} must be true or false, is {}", device[field]));
        }
    }
    if let Some(addresses) = device.get("addresses") {
        for (at, address) in list(addresses, "addresses")?.iter().enumerate() {
            // Netplan has an object for an address with options: its one key.
            let options = address.as_object().and_then(|object| object.keys().next()).map(String::as_str);
            let text = address.as_str().or(options).unwrap_or_default();
            interface_address(text).map_err(|why| format!("addresses[{at}] {why}"))?;
        }
    }
    parse::<Ipv4Addr>(device.get("gateway4"), "gateway4", "an IPv4 address")?;
    parse::<Ipv6Addr>(device.get("gateway6"), "gateway6", "an IPv6 address")?;
    if let Some(servers) = device.get("nameservers").and_then(|servers| servers.get("addresses")) {
        for (at, server) in list(servers, "nameservers.addresses")?.iter().enumerate() {
            parse::<IpAddr>(Some(server), &format!("nameservers.addresses[{at}]"), "an IP address")?;
        }
    }
    if let Some(routes) = device.get("routes") {
        for (at, route) in list(routes, "routes")?.iter().enumerate() {
            parse::<IpAddr>(route.get("via"), &format!("routes[{at}].via"), "an IP address")?;
            let to = route.get("to").and_then(Value::as_str).unwrap_or_default();
            if to != "default" && to.parse::<IpAddr>().is_err() && interface_address(to).is_err() {
                let is = route.get("to").unwrap_or(&Value::Null);
                return Err(format!("routes[{at}].to must be default or a network like 10.1.0.0/16, is {is}"));
            }
        }
    }
    if let Some(mac) = device.get("match").and_then(|by| by.get("macaddress")) {
        let text = mac.as_str().unwrap_or_default();
        if crate::rules::mac(text, &()).is_err() {
            return Err(format!("match.macaddress must look like 52:54:00:12:34:56, is {mac}"));
        }
    }
    Ok(())
}

/// Checks an address with the length of its network's prefix.
pub fn interface_address(text: &str) -> Result<(IpAddr, u8), String> {
    let why = || format!("must be an address with its prefix length, like 10.0.0.7/24, is {text:?}");
    let (address, prefix) = text.split_once('/').ok_or_else(why)?;
    let address: IpAddr = address.parse().map_err(|_| why())?;
    let prefix: u8 = prefix.parse().map_err(|_| why())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    if prefix > most { Err(why()) } else { Ok((address, prefix)) }
}

fn list<'a>(value: &'a Value, field: &str) -> Result<&'a Vec<Value>, String> {
    value.as_array().ok_or_else(|| format!("{field} must be a list, is {value}"))
}

fn parse<T: std::str::FromStr>(value: Option<&Value>, field: &str, what: &str) -> Result<(), String> {
    match value {
        Some(value) if value.as_str().is_none_or(|text| text.parse::<T>().is_err()) => {
            Err(format!("{field} must be {what}, is {value}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn devices() {
        let check = |device: Value| check_device(device.as_object().unwrap());
        for good in [
            json!({}),
            json!({"dhcp4": true, "mtu": 1400, "whatever": {"is": "new"}}),
            json!({"match": {"macaddress": "52:54:00:12:34:56"}, "set-name": "lan0"}),
            json!({"addresses": ["10.0.0.7/24", "fd00::7/64", {"10.0.0.8/24": {"lifetime": 0}}], "gateway4": "10.0.0.1"}),
            json!({"routes": [{"to": "default", "via": "10.0.0.1"}, {"to": "10.1.0.0/16", "via": "10.0.0.2", "metric": 5}]}),
            json!({"nameservers": {"search": ["a.example"], "addresses": ["10.0.0.1", "fd00::1"]}}),
        ] {
            assert_eq!(check(good.clone()), Ok(()), "{good}");
        }
        for (bad, field) in [
            (json!({"dhcp4": "yes"}), "dhcp4 must be true or false, is \"yes\""),
            (json!({"addresses": "10.0.0.7/24"}), "addresses must be a list"),
            (json!({"addresses": ["10.0.0.7"]}), "addresses[0] must be an address with its prefix length"),
            (json!({"addresses": ["10.0.0.7/24", "10.0.0.7/33"]}), "addresses[1]"),
            (json!({"addresses": ["fd00::7/129"]}), "addresses[0]"),
            (json!({"addresses": [7]}), "addresses[0]"),
            (json!({"gateway4": "fd00::1"}), "gateway4 must be an IPv4 address"),
            (json!({"gateway6": "10.0.0.1"}), "gateway6"),
            (json!({"nameservers": {"addresses": ["ns.example"]}}), "nameservers.addresses[0]"),
            (json!({"routes": [{"to": "home", "via": "10.0.0.1"}]}), "routes[0].to"),
            (json!({"routes": [{"to": "default", "via": "10.0.0"}]}), "routes[0].via"),
            (json!({"match": {"macaddress": 190_000_000}}), "match.macaddress"),
        ] {
            let why = check(bad.clone()).unwrap_err();
            assert!(why.starts_with(field), "{bad}: {why}");
        }
    }
}
