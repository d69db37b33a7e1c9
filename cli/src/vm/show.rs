//! `vmyard vm show`

use super::{Name, described_state};
use crate::{
    client::{Client, from_json},
    failure::Failure,
    human, lists, outcome,
    output::Output,
    table,
};
use api::{
    cloud_init::GivenCloudInit,
    credential::CredentialKind,
    guest::GuestInfo,
    nic::Link,
    vm::{BootDevice, Firmware, Vm},
};
use serde_json::json;

/// `vmyard vm show`
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: Name,
    /// Also what the guest's agent tells: operating system, users, file systems
    #[arg(long)]
    guest: bool,
}

/// Shows the VM.
pub fn run(client: &Client, output: Output, args: Args) -> Result<(), Failure> {
    let more = if args.guest { json!({"guest_info": true}) } else { json!({}) };
    let reply = lists::describe(client, &super::KIND, &args.name.vm, more)?;
    output.answer(&reply, || match from_json(reply.clone()) {
        Ok(vm) => text(&vm),
        // A server of another version.
        Err(_) => table::describe(&reply, &["name", "id"]),
    })
}

fn text(vm: &Vm) -> String {
    let mut facts = Vec::new();
    let mut line = |key: &str, value: String| facts.push((key.to_owned(), value));
    line("name", vm.name.clone());
    line("id", vm.id.to_string());
    line("state", described_state(vm.state.as_str(), vm.stale));
    line("node", vm.node.clone());
    line("domain", vm.domain.clone());
    if let Some(template) = &vm.template {
        line("template", template.clone());
    }
    if vm.firmware == Firmware::Uefi {
        line("firmware", "uefi".to_owned());
    }
    line("vcpus", vm.vcpus.to_string());
    line("memory", format!("{} MiB", vm.memory_mib));
    if let Some(pending) = &vm.pending {
        let vcpus = pending.vcpus.map(|vcpus| format!("{vcpus} vCPU{}", if vcpus == 1 { "" } else { "s" }));
        let memory = pending.memory_mib.map(|memory_mib| format!("{memory_mib} MiB"));
        let boot = pending.boot_order.as_ref().map(|order| format!("from {}", boot_order(order)));
        line("next boot", [vcpus, memory, boot].into_iter().flatten().collect::<Vec<_>>().join(", "));
    }
    for disk in &vm.disks {
        let size = disk.size_gib.map(|size| format!("{size} GiB ")).unwrap_or_default();
        line("disk", format!("{} {size}{}", disk.device, disk.path.as_deref().unwrap_or_default()));
        if let Some(limits) = disk.limits.and_then(|limits| serde_json::to_value(limits).ok()) {
            line("limits", outcome::limits(&limits));
        }
    }
    if let Some(iso) = &vm.iso {
        line("cd-rom", iso.clone());
    }
    if vm.boot_order.len() > 1 {
        line("boot order", boot_order(&vm.boot_order));
    }
    if vm.autostart {
        line("autostart", "with its host".to_owned());
    }
    for nic in &vm.networks {
        let down = if nic.link == Link::Down { " (link down)" } else { "" };
        let limit = |limit: Option<u64>, way| limit.map(|limit| format!(", at most {limit} kB/s {way} it"));
        let limits = [limit(nic.rx_kb_per_s, "to"), limit(nic.tx_kb_per_s, "from")].into_iter().flatten();
        let limits: String = limits.collect();
        line("network", format!("{} {}{down}{limits}", nic.network.as_deref().unwrap_or("-"), nic.mac));
        if let Some(ip) = nic.ip {
            line("address", format!("{ip} (reserved)"));
        }
        for address in &nic.addresses {
            let source = format!("{:?}", address.source).to_lowercase();
            line("address", format!("{} ({source})", address.address));
        }
    }
    if let Some(given) = &vm.cloud_init {
        line("cloud-init", cloud_init(given));
        given.ssh_key_fingerprints.iter().for_each(|key| line("ssh key", key.clone()));
    }
    if let Some(usage) = &vm.usage {
        line("usage", super::top::in_words(usage));
    }
    for check in &vm.credential_checks {
        let kind = if check.kind == CredentialKind::Password { "password" } else { "SSH keys" };
        let why = check.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        line("reset", format!("{kind} of {}: {}{why}", check.user, check.state.as_str()));
    }
    for change in &vm.changed_outside {
        line("changed", format!("{} (seen at {})", change.what, change.at));
    }
    if let Some(guest) = &vm.guest {
        guest_lines(guest, &mut line);
    }
    if let Some(why) = &vm.guest_unavailable {
        line("guest", why.clone());
    }
    for (key, value) in &vm.tags {
        line("tag", format!("{key}={value}"));
    }
    if !vm.description.is_empty() {
        line("description", vm.description.clone());
    }
    if let Some(time) = vm.created_at {
        line("created", time.to_string());
    }
    table::facts(&facts)
}

/// What the guest's agent tells.
fn guest_lines(guest: &GuestInfo, line: &mut impl FnMut(&str, String)) {
    let os = guest.os_pretty_name.as_ref().or(guest.os_name.as_ref());
    let facts = [("hostname", guest.hostname.as_ref()), ("os", os), ("kernel", guest.kernel.as_ref())];
    for (key, fact) in facts {
        if let Some(fact) = fact {
            line(key, fact.clone());
        }
    }
    for user in &guest.users {
        let since = user.since.map(|since| format!(" since {since}")).unwrap_or_default();
        line("logged in", format!("{}{since}", user.name));
    }
    for one in &guest.file_systems {
        let size = |bytes: Option<u64>| bytes.map_or("?".to_owned(), human::size);
        line(
            "mounted",
            format!("{} {} {} of {}", one.mountpoint, one.kind, size(one.used_bytes), size(one.total_bytes)),
        );
    }
    if let Some(cloud_init) = &guest.cloud_init {
        let errors: String = cloud_init.errors.iter().map(|error| format!("; {error}")).collect();
        line("cloud-init", format!("{}{errors}", if cloud_init.done { "done" } else { "at work" }));
    }
}

/// `hostname web-1, user debian with a password, user-data of 312 B`
fn cloud_init(given: &GivenCloudInit) -> String {
    let user = given.user.as_ref().map(|user| {
        let password = if given.password { " with a password" } else { "" };
        format!("user {user}{password}")
    });
    let data = |what: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{what} of {}", human::size(bytes)));
    let parts = [
        Some(format!("hostname {}", given.hostname)),
        user,
        data("user-data", given.user_data_bytes),
        data("vendor-data", given.vendor_data_bytes),
        data("network-config", given.network_config_bytes),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// `disk, cdrom`
fn boot_order(order: &[BootDevice]) -> String {
    let names = order.iter().filter_map(|device| serde_json::to_value(device).ok());
    names.filter_map(|name| name.as_str().map(str::to_owned)).collect::<Vec<_>>().join(", ")
}
