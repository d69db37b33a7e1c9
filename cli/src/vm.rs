//! `vmyard vm`

use crate::{
    client::{Client, Failure},
    table,
};
use api::{
    CloudInit,
    vm::{
        CreateVm, DeleteVm, DescribeVm, DescribeVmXml, ListVms, NicSpec, PauseVm, RebootVm, ResumeVm, StartVm, StopVm,
        Vm, VmState,
    },
};
use std::{collections::BTreeMap, fs};

/// `vmyard vm`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// List VMs
    List(List),
    /// Create a VM from a template
    Create(Box<Create>),
    /// Start a VM
    Start(Name),
    /// Stop a VM: ask the guest to power off, force it after a time
    Stop(Stop),
    /// Reboot a VM: ask the guest, reset it after a time
    Reboot(Stop),
    /// Pause a VM: its memory is kept, its CPUs don't run
    Pause(Name),
    /// Let a paused VM run on
    Resume(Name),
    /// Delete a VM that is off, with its system disk
    Delete(Name),
    /// Show a VM
    Show(Name),
    /// Print a VM's libvirt XML
    Xml(Xml),
}

/// `vmyard vm list`
#[derive(clap::Args)]
pub struct List {
    /// Only VMs whose name contains this
    #[arg(long)]
    name: Option<String>,
    /// Only VMs in this state: running, paused, shutoff, …
    #[arg(long, value_parser = state)]
    state: Option<VmState>,
    /// Only VMs of this node
    #[arg(long)]
    node: Option<String>,
    /// Only VMs with this tag: KEY=VALUE; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = pair)]
    tags: Vec<(String, String)>,
}

/// `vmyard vm create`
#[derive(clap::Args)]
pub struct Create {
    /// The new VM's name
    name: String,
    /// The template
    #[arg(long)]
    template: String,
    /// Virtual CPUs
    #[arg(long, default_value_t = 1)]
    vcpus: u32,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u64,
    /// The system disk's size in GiB
    #[arg(long, value_name = "GIB")]
    disk: Option<u64>,
    /// The pool of the system disk
    #[arg(long)]
    pool: Option<String>,
    /// A network; may be repeated [default: default]
    #[arg(long = "network")]
    networks: Vec<String>,
    /// The node
    #[arg(long)]
    node: Option<String>,
    /// A tag: KEY=VALUE; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = pair)]
    tags: Vec<(String, String)>,
    /// Free text
    #[arg(long, default_value = "")]
    description: String,
    /// The user to set up
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
    /// A file with cloud-init user-data
    #[arg(long, value_name = "FILE")]
    user_data: Option<String>,
    /// Start it at once
    #[arg(long)]
    start: bool,
}

/// A VM
#[derive(clap::Args)]
pub struct Name {
    /// The VM, by name or id
    vm: String,
}

/// `vmyard vm xml`
#[derive(clap::Args)]
pub struct Xml {
    /// The VM, by name or id
    vm: String,
    /// The definition that the next boot takes
    #[arg(long)]
    inactive: bool,
    /// With console passwords (administrators only)
    #[arg(long)]
    secrets: bool,
}

/// `vmyard vm stop` and `vmyard vm reboot`
#[derive(clap::Args)]
pub struct Stop {
    /// The VM, by name or id
    vm: String,
    /// Don't ask the guest
    #[arg(long)]
    force: bool,
    /// How long the guest has, in seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
}

fn state(text: &str) -> Result<VmState, String> {
    serde_json::from_value(text.into())
        .map_err(|_| "must be creating, running, paused, shutoff, deleting or unknown".to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "must be KEY=VALUE".to_owned())
}

/// Runs the verb.
pub fn run(client: &Client, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(args) => list(client, args),
        Verb::Create(args) => {
            let vm = client.call(&request(*args)?)?;
            println!("VM {} ({}) is {}", vm.name, vm.id, vm.state.as_str());
            Ok(())
        }
        Verb::Start(args) => {
            let vm = client.call(&StartVm { vm: args.vm })?;
            println!("VM {} is {}", vm.name, vm.state.as_str());
            Ok(())
        }
        Verb::Stop(args) => {
            let stopped = client.call(&StopVm { vm: args.vm, force: args.force, timeout_s: args.timeout })?;
            let how = if stopped.forced { "its power was cut" } else { "the guest powered off" };
            println!("VM {} is {}: {how}", stopped.vm.name, stopped.vm.state.as_str());
            Ok(())
        }
        Verb::Reboot(args) => {
            let rebooted = client.call(&RebootVm { vm: args.vm, force: args.force, timeout_s: args.timeout })?;
            let how = if rebooted.forced { "it was reset" } else { "the guest rebooted" };
            println!("VM {} is {}: {how}", rebooted.vm.name, rebooted.vm.state.as_str());
            Ok(())
        }
        Verb::Pause(args) => {
            let vm = client.call(&PauseVm { vm: args.vm })?;
            println!("VM {} is {}", vm.name, vm.state.as_str());
            Ok(())
        }
        Verb::Resume(args) => {
            let vm = client.call(&ResumeVm { vm: args.vm })?;
            println!("VM {} is {}", vm.name, vm.state.as_str());
            Ok(())
        }
        Verb::Delete(args) => {
            let deleted = client.call(&DeleteVm { vm: args.vm })?;
            println!("VM {} is deleted", deleted.name);
            for path in deleted.kept {
                println!("kept: {path}");
            }
            Ok(())
        }
        Verb::Xml(args) => {
            let request = DescribeVmXml { vm: args.vm, inactive: args.inactive, secrets: args.secrets };
            print!("{}", client.call(&request)?.xml);
            Ok(())
        }
        Verb::Show(args) => {
            show(&client.call(&DescribeVm { vm: args.vm })?);
            Ok(())
        }
    }
}

fn list(client: &Client, args: List) -> Result<(), Failure> {
    let tags: BTreeMap<_, _> = args.tags.into_iter().collect();
    let mut request = ListVms {
        name: args.name,
        state: args.state,
        node: args.node,
        tags: (!tags.is_empty()).then_some(tags),
        ..ListVms::default()
    };
    let mut table = table::new(["NAME", "STATE", "NODE", "VCPUS", "MEMORY", "TEMPLATE", "ID"].into_iter());
    loop {
        let page = client.call(&request)?;
        for vm in page.vms {
            let state = format!("{}{}", vm.state.as_str(), if vm.stale { " (stale)" } else { "" });
            let memory = format!("{} MiB", vm.memory_mib);
            table.add_row([
                vm.name,
                state,
                vm.node,
                vm.vcpus.to_string(),
                memory,
                vm.template.unwrap_or_default(),
                vm.id.to_string(),
            ]);
        }
        request.cursor = page.next_cursor;
        if request.cursor.is_none() {
            break;
        }
    }
    println!("{table}");
    Ok(())
}

fn request(args: Create) -> Result<CreateVm, Failure> {
    let read = |path: &String| {
        fs::read_to_string(path)
            .map(|text| text.trim_end().to_owned())
            .map_err(|error| Failure::Usage(format!("{path}: {error}")))
    };
    let password = match &args.password_file {
        Some(path) => Some(read(path)?),
        None => args.password,
    };
    let cloud_init = CloudInit {
        hostname: None,
        user: args.user,
        password,
        ssh_keys: args.ssh_keys.iter().map(read).collect::<Result<_, _>>()?,
        user_data: args
            .user_data
            .as_ref()
            .map(|path| fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{path}: {error}"))))
            .transpose()?,
    };
    let given = cloud_init.user.is_some()
        || cloud_init.password.is_some()
        || !cloud_init.ssh_keys.is_empty()
        || cloud_init.user_data.is_some();
    let networks = args.networks.into_iter().map(|network| NicSpec { network, mac: None }).collect::<Vec<_>>();
    Ok(CreateVm {
        name: args.name,
        template: args.template,
        vcpus: args.vcpus,
        memory_mib: args.memory,
        disk_gib: args.disk,
        pool: args.pool,
        networks: (!networks.is_empty()).then_some(networks),
        node: args.node,
        tags: args.tags.into_iter().collect(),
        description: args.description,
        cloud_init: given.then_some(cloud_init),
        max_vcpus: None,
        max_memory_mib: None,
        start: args.start,
    })
}

fn show(vm: &Vm) {
    let line = |key: &str, value: String| println!("{key:<13}{value}");
    line("name", vm.name.clone());
    line("id", vm.id.to_string());
    line("state", format!("{}{}", vm.state.as_str(), if vm.stale { " (stale)" } else { "" }));
    line("node", vm.node.clone());
    line("domain", vm.domain.clone());
    if let Some(template) = &vm.template {
        line("template", template.clone());
    }
    line("vcpus", vm.vcpus.to_string());
    line("memory", format!("{} MiB", vm.memory_mib));
    for disk in &vm.disks {
        let size = disk.size_gib.map(|size| format!("{size} GiB ")).unwrap_or_default();
        line("disk", format!("{} {size}{}", disk.device, disk.path.as_deref().unwrap_or_default()));
    }
    for nic in &vm.networks {
        line("network", format!("{} {}", nic.network.as_deref().unwrap_or("-"), nic.mac));
        for address in &nic.addresses {
            let source = format!("{:?}", address.source).to_lowercase();
            line("address", format!("{} ({source})", address.address));
        }
    }
    if let Some(usage) = &vm.usage {
        let percent = |value: Option<f64>| value.map_or("?".to_owned(), |value| format!("{value} %"));
        line(
            "usage",
            format!(
                "cpu {}, memory {} at {}",
                percent(usage.cpu_percent),
                percent(usage.memory_percent),
                usage.sampled_at
            ),
        );
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
}
