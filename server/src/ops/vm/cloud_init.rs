//! What cloud-init is given in a new VM: the seed that a request means.

use crate::{
    App, Error, Result,
    ops::keypair,
    passwords::Password,
    seed::{Seed, yaml},
    store::TemplateRecord,
};
use api::{
    CloudInit,
    cloud_init::GivenCloudInit,
    network_config::{self, NetworkConfig},
    vm::CreateVm,
};
use hypervisor::domain::NicSpec;
use serde::de::IgnoredAny;
use serde_json::json;
use std::{collections::BTreeMap, net::IpAddr};
use uuid::Uuid;

/// The seed, with the password hashed: from here on nobody has it in the clear. And what is told of it later.
pub(super) async fn seed(
    app: &App,
    vm: Uuid,
    request: &CreateVm,
    template: Option<&TemplateRecord>,
    nics: &[NicSpec],
) -> Result<Option<(Seed, GivenCloudInit)>> {
    let Some(template) = template.filter(|template| template.spec.cloud_init) else {
        let why = match template {
            Some(template) => format!("template {} has no cloud-init to read it", template.name),
            None => "there is no template with cloud-init to read it".to_owned(),
        };
        let addresses = request.networks.iter().flatten().position(|nic| !nic.addresses.is_empty());
        return match (&request.cloud_init, addresses) {
            (Some(_), _) => Err(Error::field("cloud_init", why)),
            (None, Some(at)) => Err(Error::field(format!("networks[{at}].addresses"), why)),
            (None, None) => Ok(None),
        };
    };
    let given: CloudInit = request.cloud_init.clone().unwrap_or_default();
    let user = given.user.or(template.spec.default_user.clone());
    let keys = keypair::authorized(app, "cloud_init.", &given.ssh_keys, &given.keypairs).await?;
    if user.is_none() && (given.password.is_some() || !keys.is_empty()) {
        return Err(Error::field(
            "cloud_init.user",
            "is needed for a password or keys, since the template has no default user",
        ));
    }
    for (field, text) in [("user_data", &given.user_data), ("vendor_data", &given.vendor_data)] {
        if let Some(text) = text {
            check_yaml(text).map_err(|why| Error::field(format!("cloud_init.{field}"), why))?;
        }
    }
    let shortest = app.config.min_password_length;
    let hashed = |text| Password::given(text, "cloud_init.password", shortest)?.hash();
    let password_hash = given.password.map(hashed).transpose()?;
    let network = network(request, given.network_config, nics)?;
    let network_config = network.as_ref().map(yaml).transpose()?;
    let hostname = |name: &str| name.replace(['_', '.'], "-").trim_matches('-').to_owned();
    let seed = Seed {
        instance_id: vm,
        hostname: given.hostname.unwrap_or_else(|| hostname(&request.name)),
        user,
        password_hash,
        ssh_keys: keys.iter().map(|key| key.line.clone()).collect(),
        user_data: given.user_data,
        vendor_data: given.vendor_data,
        network_config,
    };
    let bytes = |text: &Option<String>| text.as_ref().map(|text| text.len() as u64);
    let given = GivenCloudInit {
        hostname: seed.hostname.clone(),
        user: seed.user.clone(),
        password: seed.password_hash.is_some(),
        ssh_key_fingerprints: keys.into_iter().map(|key| key.fingerprint).collect(),
        user_data_bytes: bytes(&seed.user_data),
        vendor_data_bytes: bytes(&seed.vendor_data),
        network_config_bytes: bytes(&seed.network_config),
    };
    Ok(Some((seed, given)))
}

/// Checks a #cloud-config: what isn't YAML cloud-init leaves out, and says so only in its log in the guest. The error has
/// nothing of the text but keys.
fn check_yaml(text: &str) -> std::result::Result<(), String> {
    // What is in a `!!binary` is the guest's business; aliases of aliases must not hold up anybody.
    let options = || {
        serde_saphyr::options! {
            ignore_binary_tag_for_string: true,
            budget: serde_saphyr::budget! { max_nodes: 50_000 },
        }
    };
    let parsed = match text.lines().next().unwrap_or_default() {
        first if first.starts_with("#cloud-config-archive") => {
            serde_saphyr::from_str_with_options::<Vec<IgnoredAny>>(text, options()).map(|_| "a list")
        }
        first if first.starts_with("#cloud-config") => {
            serde_saphyr::from_str_with_options::<BTreeMap<String, IgnoredAny>>(text, options()).map(|_| "a mapping")
        }
        _ => return Ok(()),
    };
    // The error's own text has the lines around it.
    let why = |error: serde_saphyr::Error| {
        let text = error.without_snippet().to_string();
        text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
    };
    parsed.map(|_| ()).map_err(|error| format!("is not the YAML that cloud-init takes: {}", why(error)))
}

/// The network-config: the one that was given, or what the `addresses` of interfaces come to.
fn network(request: &CreateVm, given: Option<NetworkConfig>, nics: &[NicSpec]) -> Result<Option<NetworkConfig>> {
    let wanted = request.networks.as_deref().unwrap_or_default();
    let mut used: Vec<IpAddr> = Vec::new();
    for (at, nic) in wanted.iter().enumerate() {
        let fault = |field: &str, why: &str| Err(Error::field(format!("networks[{at}].{field}"), why));
        if nic.addresses.is_empty() {
            if nic.gateway.is_some() {
                return fault("gateway", "is for an interface with addresses");
            }
            if !nic.nameservers.is_empty() {
                return fault("nameservers", "is for an interface with addresses");
            }
            continue;
        }
        if given.is_some() {
            return fault("addresses", "can't stand beside cloud_init.network_config, which says it all");
        }
        if nic.ip.is_some() {
            return fault("addresses", "can't stand beside ip, which the interface gets by DHCP");
        }
        let mut networks = Vec::new();
        for address in &nic.addresses {
            let (address, prefix) = network_config::interface_address(address)
                .map_err(|why| Error::field(format!("networks[{at}].addresses"), why))?;
            if used.contains(&address) {
                return fault("addresses", &format!("has {address}, which is there twice"));
            }
            used.push(address);
            networks.push((address, prefix));
        }
        let reaches = |gateway| networks.iter().any(|network| same_network(*network, gateway));
        if let Some(gateway) = nic.gateway.filter(|gateway| !reaches(*gateway)) {
            return fault("gateway", &format!("{gateway} is in none of the networks of addresses"));
        }
    }
    if used.is_empty() {
        return Ok(given);
    }
    let mut config = NetworkConfig::default();
    for (at, (nic, spec)) in wanted.iter().zip(nics).enumerate() {
        let name = format!("eth{at}");
        // Named, because not everything that cloud-init writes for knows interfaces by their hardware addresses.
        let mut device = json!({ "match": { "macaddress": spec.mac }, "set-name": name });
        match nic.addresses.is_empty() {
            true => device["dhcp4"] = json!(true),
            false => device["addresses"] = json!(gateways_first(nic)),
        }
        if let Some(gateway) = nic.gateway {
            // Netplan would rather have `routes`, but takes this too. Where the guest has ifupdown, cloud-init makes calls of `route` of
            // `routes`, a program that Debian's images lack.
            device[if gateway.is_ipv4() { "gateway4" } else { "gateway6" }] = json!(gateway);
        }
        if !nic.nameservers.is_empty() {
            device["nameservers"] = json!({ "addresses": nic.nameservers });
        }
        if let serde_json::Value::Object(device) = device {
            config.ethernets.insert(name, device);
        }
    }
    Ok(Some(config))
}

/// An interface's addresses, those in the gateway's network first: cloud-init's ifupdown sets the gateway with the first one.
fn gateways_first(nic: &api::vm::NicSpec) -> Vec<&String> {
    let reaches = |address: &str| {
        let network = network_config::interface_address(address).ok();
        nic.gateway.zip(network).is_some_and(|(gateway, network)| same_network(network, gateway))
    };
    let mut addresses: Vec<&String> = nic.addresses.iter().collect();
    addresses.sort_by_key(|address| !reaches(address));
    addresses
}

/// Whether an address is in the network of this one.
fn same_network((address, prefix): (IpAddr, u8), other: IpAddr) -> bool {
    // From the left, so that a prefix is one mask for both families.
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
    address.is_ipv4() == other.is_ipv4() && bits(address) & mask == bits(other) & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let same = |address: &str, other: &str| {
            same_network(network_config::interface_address(address).unwrap(), other.parse().unwrap())
        };
        assert!(same("10.0.0.7/24", "10.0.0.1") && !same("10.0.0.7/24", "10.0.1.1"));
        assert!(same("10.0.0.7/0", "1.1.1.1") && !same("10.0.0.7/32", "10.0.0.1"));
        assert!(same("fd00::7/64", "fd00::1") && !same("fd00::7/64", "fd01::1") && !same("fd00::7/128", "fd00::1"));
        assert!(same("::1/0", "fd00::1") && !same("::1/0", "10.0.0.1") && !same("10.0.0.1/0", "fd00::1"));
    }

    #[test]
    fn the_gateways_network_comes_first() {
        let addresses = ["10.1.0.7/24", "10.0.0.7/24", "fd00::7/64"].map(str::to_owned).to_vec();
        let mut nic = api::vm::NicSpec { addresses, ..api::vm::NicSpec::default() };
        assert_eq!(gateways_first(&nic), ["10.1.0.7/24", "10.0.0.7/24", "fd00::7/64"]);
        nic.gateway = Some([10, 0, 0, 1].into());
        assert_eq!(gateways_first(&nic), ["10.0.0.7/24", "10.1.0.7/24", "fd00::7/64"]);
    }

    #[test]
    fn yaml_that_cloud_init_would_leave_out() {
        for good in [
            "#cloud-config\n",
            "#cloud-config\r\nruncmd:\r\n- [ls, -l]\r\n",
            "#cloud-config\nwrite_files:\n- path: /a\n  content: !!binary |\n    /w==\n",
            "#cloud-config\na: &x {b: c}\nd: {<<: *x}\n",
            "#cloud-config-archive\n- {type: text/x-shellscript, content: a}\n",
            "#!/bin/sh\n: [\n",
            "## template: jinja\n#cloud-config\n{% if x %}\na: [\n",
        ] {
            assert_eq!(check_yaml(good), Ok(()), "{good:?}");
        }
        for bad in [
            "#cloud-config\npassword: secret\nusers: [secret\n",
            "#cloud-config\nsecret\n",
            "#cloud-config\n- secret\n",
            "#cloud-config\na: 'secret\n",
            "#cloud-config\na: secret\n\tb: secret\n",
            "#cloud-config\na: secret\na: secret\n",
            "#cloud-config\na: secret\n---\nb: secret\n",
            "#cloud-config\na: *secret\n",
            "#cloud-config-archive\na: secret\n",
        ] {
            let why = check_yaml(bad).unwrap_err();
            assert!(why.contains("line ") && !why.contains("secret") && !why.contains('\n'), "{bad:?}: {why}");
        }
    }
}
