//! What calls through a guest's agent have in common, and what describe-vm asks it.

use super::{Subject, wrong_power};
use crate::{App, Error, Result};
use api::{
    Time,
    guest::{CloudInitOutcome, GuestFileSystem, GuestInfo, GuestUser},
};
use hypervisor::{
    ErrorKind, Node,
    domain::{self, AddressSource, Power},
};
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

/// How long describe-vm waits for the agent.
const DEADLINE: Duration = Duration::from_secs(8);

/// Whether the VM runs and its agent answers.
pub(super) async fn look(vm: &Subject, power: Power) -> Result<()> {
    let name = vm.entry.name();
    match power {
        Power::Running => {}
        Power::Paused => return Err(wrong_power(name, power, "running for its agent", "resume it first (resume-vm)")),
        Power::Off => return Err(wrong_power(name, power, "running for its agent", "start it first (start-vm)")),
    }
    vm.node.find_agent(vm.id).await.map_err(|error| explain(error, vm))
}

/// What an agent's error means.
pub(super) fn explain(error: hypervisor::Error, vm: &Subject) -> Error {
    let name = vm.entry.name();
    match error.kind {
        // Without a channel for it libvirt says that it can't.
        ErrorKind::Agent | ErrorKind::Unsupported => Error::AgentUnavailable {
            detail: format!("the guest agent of VM {name} doesn't answer: {}", error.cause),
            hint:
                "qemu-guest-agent has to be installed and running in the guest; one that has just booted needs a moment"
                    .to_owned(),
        },
        ErrorKind::AgentRefused => Error::Unsupported {
            detail: format!("the guest agent of VM {name} refuses: {}", error.cause),
            hint: Some("some guests allow their agent only some commands".to_owned()),
        },
        _ => error.into(),
    }
}

/// What the agent of a VM tells, within a deadline, or why there is nothing.
pub(super) async fn info(app: &App, node: &Node, id: Uuid) -> std::result::Result<GuestInfo, String> {
    match app.index.get(id).and_then(|entry| entry.power()) {
        Some(Power::Running) => {}
        _ => return Err("the VM is not running".to_owned()),
    }
    let asked = async {
        let told = node.guest_info(id).await?;
        let cloud_init = cloud_init(node, id).await?;
        if let Ok(addresses) = node.addresses(id, AddressSource::Agent).await {
            app.index.set_agent_addresses(id, addresses);
        }
        Ok::<_, hypervisor::Error>(to_wire(told, cloud_init))
    };
    match tokio::time::timeout(DEADLINE, asked).await {
        Ok(told) => told.map_err(|error| format!("the guest agent doesn't tell: {}", error.cause)),
        Err(_) => Err(format!("the guest agent has not answered within {} s", DEADLINE.as_secs())),
    }
}

/// How far cloud-init is: <https://cloudinit.readthedocs.io/en/latest/explanation/return_codes.html>.
async fn cloud_init(node: &Node, id: Uuid) -> hypervisor::Result<Option<CloudInitOutcome>> {
    let result = match node.guest_file(id, "/run/cloud-init/result.json").await {
        // Some agents may not read files.
        Err(error) if error.kind == ErrorKind::AgentRefused => return Ok(None),
        result => result?,
    };
    let Some(result) = result else {
        let at_work = node.guest_file(id, "/run/cloud-init/status.json").await?;
        return Ok(at_work.map(|_| CloudInitOutcome { done: false, datasource: None, errors: Vec::new() }));
    };
    let result: Value = serde_json::from_slice(&result).unwrap_or_default();
    let errors = result["v1"]["errors"].as_array().into_iter().flatten();
    Ok(Some(CloudInitOutcome {
        done: true,
        datasource: result["v1"]["datasource"].as_str().map(str::to_owned),
        errors: errors.filter_map(Value::as_str).map(str::to_owned).collect(),
    }))
}

fn to_wire(told: domain::GuestInfo, cloud_init: Option<CloudInitOutcome>) -> GuestInfo {
    let [os_id, os_name, os_pretty_name, os_version] = told.os;
    let [kernel, machine] = told.kernel;
    let user = |(name, since): (String, Option<u64>)| GuestUser { name, since: since.map(|ms| Time(ms as i64)) };
    let file_system = |one: domain::FileSystem| GuestFileSystem {
        mountpoint: one.mountpoint,
        kind: one.kind,
        total_bytes: one.total_bytes,
        used_bytes: one.used_bytes,
    };
    GuestInfo {
        hostname: told.hostname,
        os_id,
        os_name,
        os_pretty_name,
        os_version,
        kernel,
        machine,
        timezone: told.timezone,
        users: told.users.into_iter().map(user).collect(),
        file_systems: told.file_systems.into_iter().map(file_system).collect(),
        cloud_init,
        read_at: Time::now(),
    }
}
