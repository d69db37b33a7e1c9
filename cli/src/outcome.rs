//! What came of a call that changes something, in words. Also what `vmyard task wait` prints, which knows only the
//! task's method and its result.

use crate::{human, table};
use api::{
    Rpc,
    adopt::{AdoptVm, ReleaseVm},
    console::DeleteRecording,
    credential::{ResetVmKeypair, ResetVmPassword},
    disk::ModifyDisk,
    guest::ExecInVm,
    iso::{AttachIso, EjectIso},
    keypair::{CreateKeypair, DeleteKeypair, ImportKeypair},
    modify::{ModifyVmSpec, ResetVmSystem},
    nic::{AttachNetwork, DetachNetwork, ModifyNic},
    orphan::CleanOrphans,
    snapshot::{CreateSnapshot, CreateVmFromSnapshot, DeleteSnapshot, RevertToSnapshot},
    task::CancelTask,
    template::{DeleteTemplate, RegisterTemplate},
    token::{CreateToken, DeleteToken},
    vm::{CreateVm, DeleteVm, PauseVm, RebootVm, ResumeVm, StartVm, StopVm},
    volume::{AttachVolume, CloneVolume, CreateVolume, DeleteVolume, DetachVolume, ResizeVolume},
    webhook::{CreateWebhook, DeleteWebhook},
};
use serde_json::Value;

/// The reply of a method in words.
pub fn text(method: &str, reply: &Value) -> String {
    let forced = reply["forced"] == true;
    match method {
        CreateVm::NAME => format!("VM {} ({}) is {}", of(reply, "name"), of(reply, "id"), of(reply, "state")),
        StartVm::NAME | PauseVm::NAME | ResumeVm::NAME => vm(reply),
        StopVm::NAME => {
            format!("{}: {}", vm(&reply["vm"]), if forced { "its power was cut" } else { "the guest powered off" })
        }
        RebootVm::NAME => {
            format!("{}: {}", vm(&reply["vm"]), if forced { "it was reset" } else { "the guest rebooted" })
        }
        ModifyVmSpec::NAME => {
            let fields = |list: &str| {
                let fields = reply[list].as_array().into_iter().flatten().filter_map(Value::as_str);
                fields.map(human::name).collect::<Vec<_>>().join(", ")
            };
            let line = |list: &str, text: &str| match fields(list) {
                fields if fields.is_empty() => String::new(),
                fields => format!("\n{text}: {fields}"),
            };
            let (live, pending) = (line("live", "in effect"), line("pending", "waiting for its next boot"));
            format!("{}{live}{pending}", vm(&reply["vm"]))
        }
        ResetVmPassword::NAME | ResetVmKeypair::NAME => reset(method, reply),
        ExecInVm::NAME => match (reply["running"] == true, reply["exit_code"].as_i64()) {
            (true, _) => format!("process {} is still running", reply["pid"]),
            (_, Some(code)) => format!("process {} ended with exit code {code}", reply["pid"]),
            _ => format!("signal {} ended process {}", reply["signal"], reply["pid"]),
        },
        DeleteVm::NAME => {
            let kept = reply["kept"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let kept: String = kept.map(|path| format!("\nkept: {path}")).collect();
            format!("VM {} is deleted{kept}", of(reply, "name"))
        }
        RegisterTemplate::NAME => {
            format!("template {} ({}) is {}", of(reply, "name"), of(reply, "id"), of(reply, "state"))
        }
        DeleteRecording::NAME => format!("recording {} is deleted", of(reply, "id")),
        DeleteTemplate::NAME => format!("template {} is deleted", of(reply, "name")),
        CreateVolume::NAME | CloneVolume::NAME | ResizeVolume::NAME => volume(reply),
        AttachVolume::NAME => format!("{} of VM {}", volume(&reply["volume"]), of(&reply["vm"], "name")),
        DetachVolume::NAME => match of(&reply["volume"], "state") {
            "detaching" => format!(
                "{}: VM {} has it until its guest lets go or is off",
                volume(&reply["volume"]),
                of(&reply["vm"], "name")
            ),
            _ => volume(&reply["volume"]),
        },
        AttachIso::NAME => format!("{}, with {} in its CD-ROM drive", vm(reply), of(reply, "iso")),
        EjectIso::NAME => format!("{}, its CD-ROM drive is empty", vm(reply)),
        ModifyDisk::NAME => {
            let disks = reply["disks"].as_array().into_iter().flatten().filter(|disk| !disk["limits"].is_null());
            let limits: String =
                disks.map(|disk| format!("\n{}: {}", of(disk, "device"), limits(&disk["limits"]))).collect();
            format!("{}{limits}", vm(reply))
        }
        AttachNetwork::NAME | ModifyNic::NAME => nic(reply),
        DetachNetwork::NAME => format!("{}; its interface is gone", vm(reply)),
        DeleteVolume::NAME => format!("volume {} is deleted", of(reply, "name")),
        ResetVmSystem::NAME => format!("VM {} is set back to template {}", of(reply, "name"), of(reply, "template")),
        CreateVmFromSnapshot::NAME => {
            format!("VM {} ({}) is {}", of(reply, "name"), of(reply, "id"), of(reply, "state"))
        }
        CreateSnapshot::NAME => {
            let (name, vm) = (of(reply, "name"), of(reply, "vm_name"));
            format!("snapshot {name} of VM {vm} is taken; the guest stood still for {} ms", reply["pause_ms"])
        }
        RevertToSnapshot::NAME => {
            let left_out = reply["left_out"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let left_out: String = left_out.map(|device| format!("\nleft as it is: {device}")).collect();
            format!("{}, on snapshot {}{left_out}", vm(&reply["vm"]), of(&reply["snapshot"], "name"))
        }
        DeleteSnapshot::NAME => match reply["pending"].as_str() {
            Some(why) => format!("snapshot {} is deleted; its images go later: {why}", of(reply, "name")),
            None => format!("snapshot {} is deleted", of(reply, "name")),
        },
        CleanOrphans::NAME => cleaned(reply),
        // The private key alone, so that a file gets it as it is.
        CreateKeypair::NAME => match reply["private_key"].as_str() {
            Some(key) => key.to_owned(),
            None => format!("keypair {} is made; its private key is not told any more", of(reply, "name")),
        },
        ImportKeypair::NAME => format!("keypair {} ({}) is imported", of(reply, "name"), of(reply, "fingerprint")),
        DeleteKeypair::NAME => format!("keypair {} is deleted", of(reply, "name")),
        // The secret alone, so that a script has it as it is.
        CreateToken::NAME => match reply["token"].as_str() {
            Some(secret) => secret.to_owned(),
            None => format!("token {} is made; its secret is not told any more", of(reply, "name")),
        },
        DeleteToken::NAME => format!("token {} is deleted", of(reply, "name")),
        AdoptVm::NAME => format!("VM {} ({}) is Vmyard's now", of(reply, "name"), of(reply, "id")),
        ReleaseVm::NAME => {
            format!(
                "VM {} is given back: domain {} on node {}",
                of(reply, "name"),
                of(reply, "domain"),
                of(reply, "node")
            )
        }
        CreateWebhook::NAME => match reply["secret"].as_str() {
            Some(secret) => secret.to_owned(),
            None => format!("webhook {} is made; its secret is not told any more", of(reply, "name")),
        },
        DeleteWebhook::NAME => format!("webhook {} is deleted", of(reply, "name")),
        CancelTask::NAME => {
            format!(
                "task {} ({} of {}) is {}",
                of(reply, "id"),
                of(reply, "method"),
                of(&reply["target"], "name"),
                of(reply, "state")
            )
        }
        // A method that this program doesn't know yet.
        _ => table::describe(reply, &["name", "id", "state"]),
    }
}

/// What was reset, how, and from when on; with the password last, on a line of its own.
fn reset(method: &str, reply: &Value) -> String {
    let what = if method == ResetVmPassword::NAME { "the password" } else { "the SSH keys" };
    let when = match (of(reply, "applied"), reply["reboot_asked"] == true) {
        ("next_boot", true) => "set when the guest boots; it was asked to reboot",
        ("next_boot", false) => "set when the guest boots the next time",
        _ => "set",
    };
    let mut text = format!("{what} of {} in VM {}: {when}", of(reply, "user"), of(&reply["vm"], "name"));
    text.push_str(&format!(" (by {})", of(reply, "method")));
    for warning in reply["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    if reply["secret_expired"] == true {
        text.push_str("\nthe password is not told any more");
    }
    match reply["password"].as_str() {
        Some(password) => format!("{text}\n{password}"),
        None => text,
    }
}

fn vm(reply: &Value) -> String {
    format!("VM {} is {}", of(reply, "name"), of(reply, "state"))
}

/// `volume data (…) of 10 GiB is attached as vdb`
fn volume(reply: &Value) -> String {
    let device = reply["device"].as_str().map(|device| format!(" as {device}")).unwrap_or_default();
    format!(
        "volume {} ({}) of {} GiB is {}{device}",
        of(reply, "name"),
        of(reply, "id"),
        reply["size_gib"],
        of(reply, "state")
    )
}

/// `total_iops 500, read_bytes_per_s 1000000`
pub fn limits(limits: &Value) -> String {
    let limits = limits.as_object().into_iter().flatten().filter(|(_, limit)| !limit.is_null());
    limits.map(|(name, limit)| format!("{name} {limit}")).collect::<Vec<_>>().join(", ")
}

/// What was deleted, what stays and why.
fn cleaned(reply: &Value) -> String {
    let rows = |field: &str| reply[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let (deleted, freed) = (rows("deleted"), human::size(reply["freed_bytes"].as_u64().unwrap_or(0)));
    let mut text = match deleted.len() {
        1 => format!("1 orphan is deleted ({freed})"),
        n => format!("{n} orphans are deleted ({freed})"),
    };
    deleted.iter().for_each(|one| text.push_str(&format!("\ndeleted: {} {}", of(one, "kind"), of(one, "id"))));
    rows("kept").iter().for_each(|one| text.push_str(&format!("\nkept: {}: {}", of(one, "id"), of(one, "why"))));
    for node in rows("unreachable").iter().filter_map(Value::as_str) {
        text.push_str(&format!("\nnode {node} does not answer; what is on it stays"));
    }
    if let Some(more @ 1..) = reply["remaining"].as_u64() {
        text.push_str(&format!("\n{more} more can go: call again"));
    }
    text
}

/// `interface 52:54:00:12:34:56 of VM web is on network default, link up, at most 500 kB/s to the guest`
fn nic(reply: &Value) -> String {
    let nic = &reply["nic"];
    let limit = |field: &str, way: &str| match nic[field].as_u64() {
        Some(limit) => format!(", at most {limit} kB/s {way} the guest"),
        None => String::new(),
    };
    format!(
        "interface {} of VM {} is on network {}, link {}{}{}",
        of(nic, "mac"),
        of(&reply["vm"], "name"),
        of(nic, "network"),
        of(nic, "link"),
        limit("rx_kb_per_s", "to"),
        limit("tx_kb_per_s", "from")
    )
}

fn of<'a>(reply: &'a Value, field: &str) -> &'a str {
    reply[field].as_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::text;
    use serde_json::json;

    #[test]
    fn outcomes_in_words() {
        let vm = json!({"name": "web", "id": "7", "state": "shutoff"});
        assert_eq!(text("create-vm", &vm), "VM web (7) is shutoff");
        assert_eq!(text("stop-vm", &json!({"vm": vm, "forced": true})), "VM web is shutoff: its power was cut");
        assert_eq!(text("delete-vm", &json!({"name": "web", "kept": ["/a"]})), "VM web is deleted\nkept: /a");
        let modified = json!({"vm": vm, "live": ["name"], "pending": ["vcpus", "memory_mib"]});
        let words = "VM web is shutoff\nin effect: name\nwaiting for its next boot: vcpus, memory";
        assert_eq!(text("modify-vm-spec", &modified), words);
        let cleaned = json!({"deleted": [{"kind": "seed", "id": "/a.iso"}], "kept": [{"id": "/b", "why": "in use by domain x"}],
            "freed_bytes": 2048, "remaining": 2, "unreachable": ["far"]});
        let words = "1 orphan is deleted (2 KiB)\ndeleted: seed /a.iso\nkept: /b: in use by domain x\n\
                     node far does not answer; what is on it stays\n2 more can go: call again";
        assert_eq!(text("clean-orphans", &cleaned), words);
        assert_eq!(text("from-later", &vm), "name         web\nid           7\nstate        shutoff\n");
    }
}
