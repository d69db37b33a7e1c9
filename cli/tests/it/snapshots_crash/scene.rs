//! A VM without a guest, with two disks that have the same pattern at the same place, off or running.

use crate::{
    crash::nothing_is_left,
    lab::{Lab, SOON, eventually, http_client, trouble},
    random::register_blank,
    snapshots, volumes,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, process::Command, time::Duration};

pub const POINTS: [&str; 2] = ["before", "after"];
pub const HOWS: [&str; 2] = ["VMYARD_CRASH_AT", "VMYARD_FAIL_AT"];
/// Snapshots, each on the one before, with what is on the disks then.
pub const TREE: [(&str, u8); 3] = [("root", 1), ("middle", 2), ("leaf", 3)];
const PLACE: &str = "128k";
const LENGTH: &str = "64k";

pub struct Scene<'a> {
    pub lab: &'a mut Lab,
    pub on: bool,
    pub domain: String,
    id: String,
    volumes: [Value; 2],
}

impl Scene<'_> {
    pub fn new(lab: &mut Lab) -> Scene<'_> {
        register_blank(lab);
        let vm = lab.ok("create-vm", json!({"name": "scene", "template": "blank", "vcpus": 1, "memory_mib": 64}));
        let data = lab.ok("create-volume", json!({"name": "data", "size_gib": 1}));
        lab.ok("attach-volume", json!({"vm": "scene", "volume": "data"}));
        let text = |key: &str| vm[key].as_str().unwrap().to_owned();
        let (domain, id) = (text("domain"), text("id"));
        Scene { lab, on: false, domain, id, volumes: [vm["disks"][0]["volume"].clone(), data["id"].clone()] }
    }

    pub fn start(&mut self) {
        self.lab.ok("start-vm", json!({"vm": "scene"}));
        self.on = true;
    }

    pub fn stop(&mut self) {
        self.lab.ok("stop-vm", json!({"vm": "scene", "force": true}));
        self.on = false;
    }

    /// Both disks as they are now.
    pub fn disks(&self) -> [Value; 2] {
        self.volumes.clone().map(|id| self.lab.ok("describe-volume", json!({"volume": id})))
    }

    /// Writes to both disks, as a guest would.
    pub fn write(&self, pattern: u8) {
        match self.on {
            true => self.in_qemu(&format!("write -P {pattern} {PLACE} {LENGTH}")),
            false => self.disks().iter().for_each(|disk| volumes::write(disk, pattern, PLACE, LENGTH)),
        }
    }

    /// The same, of a guest that has it written through before it goes on.
    pub fn write_through(&self, pattern: u8) {
        self.write(pattern);
        self.in_qemu("flush");
    }

    /// Has a running VM's QEMU do something with both disks.
    #[track_caller]
    fn in_qemu(&self, what: &str) {
        let xml = self.lab.node.virsh(&["dumpxml", &self.domain]);
        let aliases = xml.split("<alias name='").skip(1).filter_map(|rest| rest.split('\'').next());
        let disks: Vec<&str> =
            aliases.filter(|alias| alias.starts_with("virtio-disk") || alias.starts_with("ua-")).collect();
        assert_eq!(disks.len(), 2, "{xml}");
        for disk in disks {
            let line = format!("qemu-io -d /machine/peripheral/{disk}/virtio-backend \"{what}\"");
            let said = self.lab.node.virsh(&["qemu-monitor-command", "--hmp", &self.domain, &line]);
            assert!(!said.contains("failed") && !said.contains("rror"), "{line}: {said}");
        }
    }

    /// Fails unless both disks have this pattern now.
    #[track_caller]
    pub fn has(&self, pattern: u8, what: &str) {
        println!("{what}: has {pattern}?");
        match self.on {
            true => self.in_qemu(&format!("read -P {pattern} {PLACE} {LENGTH}")),
            false => self.disks().iter().for_each(|disk| volumes::has(disk, pattern, PLACE, LENGTH)),
        }
    }

    /// Fails unless a snapshot's images have this pattern.
    #[track_caller]
    pub fn snapshot_has(&self, name: &str, pattern: u8, what: &str) {
        let snapshot = self.lab.ok("describe-snapshot", json!({"vm": "scene", "snapshot": name}));
        let disks = snapshot["disks"].as_array().unwrap();
        assert_eq!(disks.len(), 2, "{what}");
        for disk in disks {
            let (path, line) = (disk["path"].as_str().unwrap(), format!("read -P {pattern} {PLACE} {LENGTH}"));
            let output = Command::new("qemu-io").args(["-r", "-U", "-f", "qcow2", "-c", &line, path]).output().unwrap();
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success() && !said.contains("failed"), "{what}: {name}: {said}");
        }
    }

    /// Kills the server at a step of a call, or lets it fail there, and starts it again. Returns whether it is done all the same.
    #[track_caller]
    pub fn cut(&mut self, how: &str, at: &str, method: &str, body: Value) -> bool {
        self.lab.server.kill_and_restart(&[(how, at)]);
        let answer = self.lab.server.call(method, body);
        assert!(
            answer.status == if how == HOWS[0] { 0 } else { 422 } || answer.status == 200,
            "{how} {at}: {answer:?}"
        );
        self.lab.server.kill_and_restart(&[]);
        self.lab.wait_for_tasks();
        let tasks = self.lab.ok("list-tasks", json!({"method": method, "limit": 1}));
        let task = self.lab.ok("describe-task", json!({"task": tasks["tasks"][0]["id"]}));
        let done = task["state"] == "done";
        assert!(done || task["state"] == "failed", "{how} {at}: {task}");
        assert!(done || answer.status != 200, "{how} {at}: {answer:?} {task}");
        if done && method == "create-snapshot" {
            assert_eq!((&task["result"]["name"], &task["result"]["state"]), (&json!("one"), &json!("ready")), "{task}");
        }
        done
    }

    /// The names of the snapshots that are not hidden.
    pub fn names(&self) -> Vec<String> {
        let listed = self.lab.ok("list-snapshots", json!({"vm": "scene"}));
        let shown = listed["snapshots"].as_array().unwrap().iter().filter(|one| one["state"] != "deleting");
        shown.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    pub fn wait_until_merged(&self, what: &str) {
        self.wait_until_merged_while(what, || ());
    }

    /// The same, with something that is done again and again meanwhile.
    #[track_caller]
    pub fn wait_until_merged_while(&self, what: &str, mut meanwhile: impl FnMut()) {
        eventually(&format!("{what}: no snapshot is hidden any more"), SOON, || {
            meanwhile();
            let listed = self.lab.ok("list-snapshots", json!({"vm": "scene"}));
            listed["snapshots"].as_array().unwrap().iter().all(|one| one["state"] == "ready").then_some(())
        });
    }

    /// Takes the snapshots of [`TREE`], cuts the deletion of one by `cut`, deletes it where that came to nothing, and looks whether the
    /// others and the disks are as they were; then all go. Returns whether it was still there after `cut`.
    #[track_caller]
    pub fn delete_cut(&mut self, gone: &str, what: &str, cut: impl FnOnce(&mut Scene<'_>, Value)) -> bool {
        for (name, pattern) in TREE {
            self.write(pattern);
            self.lab.ok("create-snapshot", json!({"vm": "scene", "name": name}));
        }
        self.write(4);
        let body = json!({"vm": "scene", "snapshot": gone});
        cut(self, body.clone());
        let stayed = self.names().contains(&gone.to_owned());
        if stayed {
            self.lab.ok("delete-snapshot", body);
        }
        self.wait_until_merged(what);
        let others = || TREE.into_iter().filter(|(name, _)| *name != gone);
        for (name, pattern) in others() {
            self.snapshot_has(name, pattern, what);
        }
        self.has(4, what);
        self.agrees(what);
        for (name, _) in others() {
            self.lab.ok("delete-snapshot", json!({"vm": "scene", "snapshot": name}));
        }
        self.wait_until_merged(what);
        self.has(4, what);
        stayed
    }

    /// libvirtd may die by itself (9.0, when it is asked about a domain just after it was started again); a machine's own would
    /// be started by systemd.
    pub fn revive(&self, libvirtd: &mut String) {
        if !fs::exists(format!("/proc/{libvirtd}")).unwrap() {
            println!("libvirtd has died");
            self.lab.node.command("start-libvirtd");
            *libvirtd = self.lab.node.command("pid libvirtd");
        }
    }

    /// It may have lost the VM, which is off then, with what its guest had written through; it is started again.
    pub fn wait_until_up(&mut self, libvirtd: &mut String) {
        let state = eventually("the node is up", SOON, || {
            self.revive(libvirtd);
            let vm = self.lab.ok("describe-vm", json!({"vm": "scene"}));
            let state = vm["state"].as_str().unwrap().to_owned();
            (vm["stale"] == false && ["running", "shutoff"].contains(&state.as_str())).then_some(state)
        });
        if state == "shutoff" {
            println!("the VM is off; its QEMU: {:?}", self.qemu());
            if let Some(qemu) = self.qemu().filter(|_| self.is_forgotten()) {
                signal("-KILL", &qemu);
            }
            eventually("its QEMU is gone", SOON, || self.qemu().is_none().then_some(()));
            // virtlogd may not have seen it yet.
            eventually("it starts", SOON, || {
                (self.lab.server.call("start-vm", json!({"vm": "scene"})).status == 200).then_some(())
            });
        }
    }

    /// Whether a libvirtd could not read what the one before it had written down of the running VM: 9.0 writes `<mirror job=''>`
    /// in the moment in which a merge ends, and takes no such thing. Its QEMU runs on without it, and has to be ended by hand.
    fn is_forgotten(&self) -> bool {
        let log = fs::read_to_string(self.lab.node.dir.join("log/libvirtd.log")).unwrap();
        log.contains("unknown mirror job type") && log.contains("Failed to load config for domain")
    }

    /// A VM of which libvirt names an image that its QEMU isn't on any more is off once, as the documentation says.
    pub fn start_anew_where_libvirt_lost_track(&mut self) {
        let vm = self.lab.ok("describe-vm", json!({"vm": "scene"}));
        if vm["disks"].as_array().unwrap().iter().any(|disk| disk["volume"].is_null()) {
            println!("libvirt names images that QEMU isn't on");
            self.stop();
            self.start();
        }
    }

    /// The tree in the database is the one on the disk, and there is no file beside those that somebody names.
    #[track_caller]
    pub fn agrees(&self, what: &str) {
        println!("{what}: agrees?");
        snapshots::agrees(self.lab, "scene");
        let image = self.lab.ok("describe-template", json!({"template": "blank"}))["copies"][0]["path"].clone();
        let image = image.as_str().unwrap();
        let mut left = BTreeSet::new();
        let end = std::time::Instant::now() + SOON;
        while std::time::Instant::now() < end {
            let path = |of: &Value| of["path"].as_str().unwrap().to_owned();
            let mut named: BTreeSet<String> = self.disks().iter().map(path).collect();
            named.insert(image.to_owned());
            let mut memories = Vec::new();
            // A hidden one's images may be on their way out.
            let mut going = BTreeSet::new();
            for snapshot in self.lab.ok("list-snapshots", json!({"vm": "scene"}))["snapshots"].as_array().unwrap() {
                let images = snapshot["disks"].as_array().unwrap().iter().map(path);
                if snapshot["state"] == "deleting" {
                    going.extend(images);
                    continue;
                }
                named.extend(images);
                memories.extend(
                    (snapshot["memory"] == true).then(|| format!("{}.memory", snapshot["id"].as_str().unwrap())),
                );
            }
            let files = self.lab.files();
            for memory in &memories {
                assert!(files.iter().any(|file| file.ends_with(memory)), "{what}: {memory} is missing: {files:?}");
            }
            for path in &named {
                assert!(fs::exists(path).unwrap(), "{what}: {path} is missing");
            }
            let is_known = |file: &String| {
                named.contains(file)
                    || going.contains(file)
                    || memories.iter().any(|memory| file.ends_with(memory))
                    || file.rsplit('/').next().unwrap().starts_with(&self.id)
            };
            left = files.into_iter().filter(|file| !is_known(file)).collect();
            if left.is_empty() {
                return;
            }
            // What something still used at the time goes with the next scan.
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{what}: nobody's: {left:?}");
    }

    /// The process id of the VM's QEMU.
    pub fn qemu(&self) -> Option<String> {
        let (mark, dir) = (format!("guest={}", self.domain), self.lab.node.dir.display().to_string());
        trouble::qemus(&[&mark, &dir]).pop()
    }

    /// How many images there are in the pool.
    pub fn images(&self) -> usize {
        let files = fs::read_dir(self.lab.node.dir.join("pools/default")).unwrap().flatten();
        files.filter(|file| file.path().extension().is_some_and(|extension| extension == "qcow2")).count()
    }

    /// Kills the VM's QEMU, and waits until Vmyard has seen it.
    pub fn kill_qemu(&mut self) {
        signal("-9", &self.qemu().unwrap());
        self.is_off();
    }

    /// Its QEMU is dead: waits until Vmyard has seen it.
    pub fn is_off(&mut self) {
        self.on = false;
        eventually("it is off", SOON, || {
            (self.lab.ok("describe-vm", json!({"vm": "scene"}))["state"] == "shutoff").then_some(())
        });
    }

    /// Deletes all of it; nothing is left.
    pub fn end(mut self) {
        if self.on {
            self.stop();
        }
        for name in self.names() {
            self.lab.ok("delete-snapshot", json!({"vm": "scene", "snapshot": name}));
        }
        self.wait_until_merged("the end");
        self.lab.ok("delete-vm", json!({"vm": "scene", "delete_volumes": true}));
        self.lab.ok("delete-template", json!({"template": "blank"}));
        nothing_is_left(self.lab, "all of it");
    }
}

pub fn signal(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

/// Calls a method of a server that may die meanwhile.
pub fn post(url: &str, token: &str, method: &str, body: &Value) {
    let http = http_client(Duration::from_secs(30));
    let request = http.post(format!("{url}/api/{method}")).header("content-type", "application/json");
    let _ = request.bearer_auth(token).body(body.to_string()).send();
}
