//! `vmyard vm create`

use crate::{change::Change, client::Client, complete, failure::Failure, output::Output};
use api::{
    CloudInit,
    network_config::NetworkConfig,
    vm::{BootDevice, CreateVm, Firmware, NicSpec},
};
use clap_complete::ArgValueCompleter;
use serde_json::Value;
use std::fs;

/// `vmyard vm create`
#[derive(clap::Args)]
pub struct Args {
    /// The new VM's name
    name: String,
    /// The template; without one, --iso and --disk make a VM to install
    #[arg(long, required_unless_present = "iso", add = ArgValueCompleter::new(complete::templates))]
    template: Option<String>,
    /// An ISO image for its CD-ROM drive: its file in a pool
    #[arg(long, value_name = "FILE")]
    iso: Option<String>,
    /// The pool that has the ISO image [default: default]
    #[arg(long, requires = "iso", add = ArgValueCompleter::new(complete::pools))]
    iso_pool: Option<String>,
    /// What it boots from, in this order: disk, cdrom, network [default: disk, then the ISO image]
    #[arg(long, value_name = "DEVICE,…", value_delimiter = ',', value_parser = super::boot_device)]
    boot: Vec<BootDevice>,
    /// Virtual CPUs
    #[arg(long, default_value_t = 1)]
    vcpus: u32,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u64,
    /// The system disk's size in GiB [default: the template's]
    #[arg(long, value_name = "GIB")]
    disk: Option<u64>,
    /// The pool of the system disk [default: default]
    #[arg(long, add = ArgValueCompleter::new(complete::pools))]
    pool: Option<String>,
    /// An interface: NETWORK[,mac=MAC][,ip=IP] with an address from DHCP, or NETWORK[,address=IP/PREFIX…][,gateway=IP][,dns=IP…]
    /// with fixed ones; may be repeated [default: default]
    #[arg(long = "network", value_name = "NETWORK", value_parser = nic, add = ArgValueCompleter::new(complete::networks))]
    networks: Vec<NicSpec>,
    /// No interface
    #[arg(long, conflicts_with = "networks")]
    no_network: bool,
    /// The node [default: the server chooses]
    #[arg(long, add = ArgValueCompleter::new(complete::nodes))]
    node: Option<String>,
    /// A tag: KEY=VALUE; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = super::pair)]
    tags: Vec<(String, String)>,
    /// Start it whenever its host is booted
    #[arg(long)]
    autostart: bool,
    /// Free text
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// Virtual CPUs that hot-plug may reach [default: as many as --vcpus]
    #[arg(long, value_name = "N")]
    max_vcpus: Option<u32>,
    /// Memory that hot-plug may reach, in MiB [default: as much as --memory]
    #[arg(long, value_name = "MIB")]
    max_memory: Option<u64>,
    /// The guest's hostname [default: the VM's name]
    #[arg(long)]
    hostname: Option<String>,
    /// The user to set up [default: the template's]
    #[arg(long)]
    user: Option<String>,
    /// That user's password (seen by whoever sees this machine's processes; --password-file hides it)
    #[arg(long, conflicts_with = "password_file")]
    password: Option<String>,
    /// A file with that user's password
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
    /// A file with an OpenSSH public key for that user; may be repeated
    #[arg(long = "ssh-key", value_name = "FILE")]
    ssh_keys: Vec<String>,
    /// A keypair whose public key that user gets, by name or id; may be repeated
    #[arg(long = "keypair", value_name = "KEYPAIR", add = ArgValueCompleter::new(complete::keypairs))]
    keypairs: Vec<String>,
    /// A file with cloud-init user-data
    #[arg(long, value_name = "FILE")]
    user_data: Option<String>,
    /// A file with cloud-init vendor-data
    #[arg(long, value_name = "FILE")]
    vendor_data: Option<String>,
    /// A file with a network-config of version 2 (Netplan's form), as YAML or JSON
    #[arg(long, value_name = "FILE")]
    network_config: Option<String>,
    /// What boots it: bios or uefi [default: bios]
    #[arg(long, value_parser = firmware)]
    firmware: Option<Firmware>,
    /// Start it at once
    #[arg(long)]
    start: bool,
    #[command(flatten)]
    change: Change,
}

fn firmware(text: &str) -> Result<Firmware, String> {
    serde_json::from_value(text.into()).map_err(|_| "must be bios or uefi".to_owned())
}

/// Reads `NETWORK[,mac=MAC][,ip=IP][,address=IP/PREFIX…][,gateway=IP][,dns=IP…]`.
fn nic(text: &str) -> Result<NicSpec, String> {
    let mut parts = text.split(',');
    let network = parts.next().unwrap_or_default().to_owned();
    let mut nic = NicSpec { network, ..NicSpec::default() };
    for part in parts {
        match part.split_once('=') {
            Some(("mac", mac)) => nic.mac = Some(mac.to_owned()),
            Some(("ip", ip)) => {
                nic.ip = Some(ip.parse().map_err(|_| format!("{ip:?} is no IPv4 address"))?);
            }
            Some(("address", address)) => nic.addresses.push(address.to_owned()),
            Some(("gateway", ip)) => {
                nic.gateway = Some(ip.parse().map_err(|_| format!("{ip:?} is no IP address"))?);
            }
            Some(("dns", ip)) => nic.nameservers.push(ip.parse().map_err(|_| format!("{ip:?} is no IP address"))?),
            _ => return Err(format!("{part:?} is none of mac=MAC, ip=IP, address=IP/PREFIX, gateway=IP and dns=IP")),
        }
    }
    Ok(nic)
}

/// Reads a network-config, also one of Netplan's files, where all is below `network`.
fn network_config(path: &str) -> Result<NetworkConfig, Failure> {
    let wrong = |why: String| Failure::Usage(format!("{path}: {why}"));
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let mut config: Value = serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if let Some(inner) = config.get_mut("network") {
        config = inner.take();
    }
    serde_json::from_value(config).map_err(|error| wrong(format!("is no network-config of version 2: {error}")))
}

/// Creates the VM.
pub fn run(client: &Client, output: Output, args: Args) -> Result<(), Failure> {
    let (request, change) = request(args)?;
    change.run(client, output, &request)
}

fn request(args: Args) -> Result<(CreateVm, Change), Failure> {
    let read = |path: &String| {
        fs::read_to_string(path)
            .map(|text| text.trim_end().to_owned())
            .map_err(|error| Failure::Usage(format!("{path}: {error}")))
    };
    let whole = |path: &String| fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{path}: {error}")));
    let password = match &args.password_file {
        Some(path) => Some(read(path)?),
        None => args.password,
    };
    let cloud_init = CloudInit {
        hostname: args.hostname,
        user: args.user,
        password,
        ssh_keys: args.ssh_keys.iter().map(read).collect::<Result<_, _>>()?,
        keypairs: args.keypairs,
        user_data: args.user_data.as_ref().map(whole).transpose()?,
        vendor_data: args.vendor_data.as_ref().map(whole).transpose()?,
        network_config: args.network_config.as_deref().map(network_config).transpose()?,
    };
    let given = cloud_init.hostname.is_some()
        || cloud_init.user.is_some()
        || cloud_init.password.is_some()
        || !cloud_init.ssh_keys.is_empty()
        || !cloud_init.keypairs.is_empty()
        || cloud_init.user_data.is_some()
        || cloud_init.vendor_data.is_some()
        || cloud_init.network_config.is_some();
    let request = CreateVm {
        name: args.name,
        template: args.template,
        iso: args.iso,
        iso_pool: args.iso_pool,
        boot_order: (!args.boot.is_empty()).then_some(args.boot),
        vcpus: args.vcpus,
        memory_mib: args.memory,
        disk_gib: args.disk,
        pool: args.pool,
        networks: (args.no_network || !args.networks.is_empty()).then_some(args.networks),
        node: args.node,
        tags: args.tags.into_iter().collect(),
        description: args.description,
        cloud_init: given.then_some(cloud_init),
        max_vcpus: args.max_vcpus,
        max_memory_mib: args.max_memory,
        firmware: args.firmware.unwrap_or_default(),
        start: args.start,
        autostart: args.autostart,
    };
    Ok((request, args.change))
}

#[cfg(test)]
mod tests {
    use super::nic;

    #[test]
    fn interfaces() {
        let plain = nic("default").unwrap();
        assert_eq!((plain.network.as_str(), plain.mac, plain.ip), ("default", None, None));
        let whole = nic("lan,ip=10.0.0.7,mac=52:54:00:9c:3e:02").unwrap();
        assert_eq!(whole.mac.as_deref(), Some("52:54:00:9c:3e:02"));
        assert_eq!(whole.ip.map(|ip| ip.to_string()).as_deref(), Some("10.0.0.7"));
        let fixed = nic("lan,address=10.0.0.7/24,address=fd00::7/64,gateway=10.0.0.1,dns=10.0.0.1").unwrap();
        assert_eq!((fixed.addresses.len(), fixed.nameservers.len(), fixed.gateway.is_some()), (2, 1, true));
        assert!(nic("lan,gateway=home").unwrap_err().contains("home"));
        assert!(nic("lan,ip=10.0.0").unwrap_err().contains("10.0.0"));
        assert!(nic("lan,vlan=3").unwrap_err().contains("vlan=3"));
    }
}
