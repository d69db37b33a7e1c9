//! Random sequences of snapshots, reverts, deletions and everything else that moves the images of a VM that is off, against a
//! model of what each image must have: places with a pattern. The images are looked into past Vmyard, with qemu-io.
//!
//! ```text
//! VMYARD_TEST_SEQUENCES=200    how many sequences
//! VMYARD_TEST_SEED=…           the seed of an earlier run; sequence n of it has the seed VMYARD_TEST_SEED + n (with VMYARD_TEST_FULL if that
//!                              was set)
//! ```

mod model;

use crate::{
    lab::{Lab, eventually},
    random::{Dice, number, register_blank},
    rebuild::lose_and_rebuild,
    snapshots::agrees_on_disk,
};
use model::{Content, Model};
use serde_json::{Value, json};
use std::{collections::BTreeMap, process::Command, time::Duration};

/// How many sequences `cargo test` has, and the full run.
const SEQUENCES: (u64, u64) = (20, 200);
/// The same on a node where each merge starts a QEMU.
const FAR_SEQUENCES: (u64, u64) = (6, 50);
/// How many calls a sequence has then.
const CALLS: (u64, u64) = (7, 14);
/// Where the server is told to die now and then.
const STEPS: [&str; 11] = [
    "record-snapshot",
    "make-overlay",
    "take-snapshot",
    "make-ready",
    "switch-disks",
    "record-revert",
    "mark-deleting",
    "merge-images",
    "delete-images",
    "copy-volume",
    "update-definition",
];
const END: Duration = Duration::from_secs(100);

/// One sequence: the lab, the VM, what it must look like, and what was done so far.
struct Play<'a> {
    lab: &'a mut Lab,
    /// Whether qemu-img can't be run on the node: an image with several on it is not merged into the one below it.
    far: bool,
    dice: Dice,
    model: Model,
    vm: String,
    /// How many names were given.
    names: u64,
    said: Vec<String>,
}

impl Play<'_> {
    /// Calls a method; now and then the server dies in it. Returns the answer, or `None` when it was cut off and didn't come about.
    fn call(&mut self, method: &str, body: Value) -> Option<Value> {
        if !self.dice.one_in(8) {
            self.said.push(format!("{method} {body}"));
            return Some(self.lab.ok(method, body));
        }
        let step = STEPS[self.dice.below(STEPS.len() as u64) as usize];
        let at = format!("{step}:{}", if self.dice.one_in(2) { "before" } else { "after" });
        self.said.push(format!("{method} {body}, killed at {at}"));
        self.lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", &at)]);
        let answer = self.lab.server.call(method, body);
        self.lab.server.kill_and_restart(&[]);
        self.lab.wait_for_tasks();
        if answer.status == 200 {
            return Some(answer.body);
        }
        assert_eq!(answer.status, 0, "{answer:?}");
        let tasks = self.lab.ok("list-tasks", json!({"method": method, "limit": 1}));
        let task = self.lab.ok("describe-task", json!({"task": tasks["tasks"][0]["id"]}));
        self.said.push(format!("… it is {}", task["state"]));
        match task["state"].as_str().unwrap() {
            "done" => Some(task["result"].clone()),
            "failed" => None,
            _ => panic!("{task}"),
        }
    }

    fn volume(&self, id: &str) -> Value {
        self.lab.ok("describe-volume", json!({"volume": id}))
    }

    fn snapshots(&self) -> Vec<Value> {
        self.lab.ok("list-snapshots", json!({"vm": self.vm, "limit": 1000}))["snapshots"].as_array().unwrap().clone()
    }

    /// Any of the disks, as often as there are.
    fn any_disk(&mut self) -> String {
        let ids: Vec<String> = self.model.disks.keys().cloned().collect();
        ids[self.dice.below(ids.len() as u64) as usize].clone()
    }

    fn any_snapshot(&mut self) -> Option<String> {
        let ids: Vec<String> = self.model.snapshots.keys().cloned().collect();
        (!ids.is_empty()).then(|| ids[self.dice.below(ids.len() as u64) as usize].clone())
    }

    fn name(&mut self, what: &str) -> String {
        self.names += 1;
        format!("{what}-{}", self.names)
    }

    fn act(&mut self) {
        match self.dice.below(20) {
            0..=4 => self.write(),
            5..=8 => self.take(),
            9..=11 => self.revert(),
            12..=15 => self.delete(),
            16 => self.plug(),
            17 => self.grow(),
            18 => self.copy(),
            _ if self.dice.one_in(2) => {
                self.said.push("its database is lost".to_owned());
                let done = lose_and_rebuild(self.lab);
                assert!(!done.contains("note: "), "{done}");
            }
            _ => {
                self.said.push("killed".to_owned());
                self.lab.server.kill_and_restart(&[]);
                self.lab.wait_for_tasks();
            }
        }
    }

    fn write(&mut self) {
        let id = self.any_disk();
        let end = self.model.disks[&id].size;
        let (place, pattern) = (model::place(&mut self.dice, end), 1 + self.dice.below(250) as u8);
        self.said.push(format!("write {pattern} at {place} of {id}"));
        crate::volumes::write(&self.volume(&id), pattern, &place.to_string(), "64k");
        self.model.disks.get_mut(&id).unwrap().content.places.insert(place, pattern);
    }

    fn take(&mut self) {
        let name = self.name("s");
        let taken = self.call("create-snapshot", json!({"vm": self.vm, "name": name}));
        match taken {
            Some(taken) => self.model.take(taken["id"].as_str().unwrap(), &name),
            None => {
                assert!(self.snapshots().iter().all(|one| one["name"] != *name), "it is there, and its task failed")
            }
        }
    }

    fn revert(&mut self) {
        let Some(to) = self.any_snapshot() else { return };
        let backup = self.dice.one_in(3).then(|| self.name("b"));
        let mut body = json!({"vm": self.vm, "snapshot": to});
        if let Some(name) = &backup {
            body["backup"] = json!(name);
        }
        let done = self.call("revert-to-snapshot", body).is_some();
        // The backup comes first, and stays when the rest fails.
        if let Some(name) = &backup {
            let listed = self.snapshots();
            let found = listed.iter().find(|one| one["name"] == **name);
            assert!(found.is_some() || !done, "no backup");
            found.inspect(|found| self.model.take(found["id"].as_str().unwrap(), name));
        }
        if done {
            self.model.revert(&to);
        }
    }

    fn delete(&mut self) {
        let Some(id) = self.any_snapshot() else { return };
        let children = self.model.images_on(&id);
        let gone = self.call("delete-snapshot", json!({"snapshot": id}));
        if let Some(gone) = &gone
            && gone["id"] == id
        {
            assert!(gone["pending"].is_null() || children > 1 || self.model.hidden > 0 || self.far, "{gone}");
            self.model.hidden += u64::from(!gone["pending"].is_null());
        }
        let listed = self.snapshots();
        let stays = listed.iter().any(|one| one["id"] == *id && one["state"] == "ready");
        assert!(!stays || gone.is_none(), "it was deleted and stays");
        if !stays {
            self.model.hidden += u64::from(gone.is_none());
            self.model.delete(&id);
        }
    }

    /// The data volume comes or goes.
    fn plug(&mut self) {
        let id = self.model.data();
        let attached = self.model.disks[&id].attached;
        let method = if attached { "detach-volume" } else { "attach-volume" };
        self.call(method, json!({"vm": self.vm, "volume": id}));
        let now = self.volume(&id)["state"] == "attached";
        self.model.disks.get_mut(&id).unwrap().attached = now;
    }

    fn grow(&mut self) {
        let id = self.model.data();
        let wanted = (self.model.disks[&id].size >> 30) + 1;
        if wanted <= 3 {
            self.call("resize-volume", json!({"volume": id, "size_gib": wanted}));
            self.model.disks.get_mut(&id).unwrap().size = self.volume(&id)["size_bytes"].as_u64().unwrap();
        }
    }

    /// A copy of the data volume stands on the same images as its original; the second one goes.
    fn copy(&mut self) {
        let copy = self.model.disks.iter().find(|(_, disk)| disk.copy).map(|(id, _)| id.clone());
        if let Some(copy) = copy {
            self.call("delete-volume", json!({"volume": copy}));
            let state = || self.lab.server.call("describe-volume", json!({"volume": copy})).body["state"].clone();
            // Unless the server died before the mark.
            if state() != "available" {
                eventually("the copy is gone", END, || state().is_null().then_some(()));
                self.model.disks.remove(&copy);
            }
            return;
        }
        let (original, name) = (self.model.data(), self.name("copy"));
        if let Some(made) = self.call("clone-volume", json!({"volume": original, "name": name})) {
            self.model.copy(&original, made["id"].as_str().unwrap());
        }
    }

    /// Waits until no hidden snapshot has an image that can go: one is read here that nobody is just taking out.
    fn quiet(&self) {
        eventually("no image of a hidden snapshot can go", END, || {
            let listed = self.snapshots();
            let disks = |one: &Value| one["disks"].as_array().unwrap().clone();
            // The images with what they stand on, and how many may stand on them so that they merge.
            let volumes = self.model.disks.keys().map(|id| self.volume(id));
            let volumes = volumes.map(|one| (one["path"].clone(), one["backing_chain"][0]["path"].clone(), 0));
            let frozen = listed.iter().flat_map(disks);
            let frozen = frozen.map(|disk| (disk["path"].clone(), disk["backing"].clone(), 1));
            let images: Vec<(Value, Value, usize)> = frozen.chain(volumes).collect();
            let on = |path: &Value| images.iter().filter(|(_, backing, _)| backing == path).collect::<Vec<_>>();
            let waits = |disk: &Value| match on(&disk["path"])[..] {
                [] => false,
                [(upper, _, most)] => self.far && on(upper).len() > *most,
                _ => true,
            };
            let hidden = listed.iter().filter(|one| one["state"] == "deleting");
            hidden.flat_map(disks).all(|disk| waits(&disk)).then_some(())
        });
    }

    /// Everything is as the model says.
    fn check(&self) {
        self.quiet();
        let listed = self.snapshots();
        let ready: BTreeMap<&str, &Value> =
            listed.iter().filter(|one| one["state"] == "ready").map(|one| (one["id"].as_str().unwrap(), one)).collect();
        let expected: Vec<&str> = self.model.snapshots.keys().map(String::as_str).collect();
        assert_eq!(ready.keys().copied().collect::<Vec<_>>(), expected);
        assert!(listed.iter().all(|one| ["ready", "deleting"].contains(&one["state"].as_str().unwrap())), "{listed:?}");
        for (id, snapshot) in &self.model.snapshots {
            let told = ready[id.as_str()];
            assert_eq!(told["parent"].as_str(), snapshot.parent.as_deref(), "the parent of {}", snapshot.name);
            assert_eq!(told["current"] == true, self.model.current.as_ref() == Some(id), "{told}");
            let disks = told["disks"].as_array().unwrap();
            assert_eq!(disks.len(), snapshot.disks.len(), "{told}");
            for disk in disks {
                let content = &snapshot.disks[disk["volume"].as_str().unwrap()];
                shows(disk["path"].as_str().unwrap(), content, &snapshot.name);
            }
        }
        for (id, disk) in &self.model.disks {
            let volume = self.volume(id);
            assert_eq!(
                (volume["state"] == "attached", volume["size_bytes"].as_u64()),
                (disk.attached, Some(disk.size))
            );
            shows(volume["path"].as_str().unwrap(), &disk.content, id);
        }
        agrees_on_disk(self.lab, &self.vm);
        let orphans = self.lab.ok("list-orphans", json!({}));
        assert_eq!(orphans["total"], 0, "no image is there that nothing refers to: {orphans}");
    }

    /// Deletes everything; nothing is left.
    fn end(mut self) {
        let with_vm = self.dice.one_in(2);
        while let Some(id) = self.any_snapshot().filter(|_| !with_vm) {
            self.lab.ok("delete-snapshot", json!({"snapshot": id}));
            self.model.delete(&id);
            self.check();
        }
        let vm = self.lab.ok("describe-vm", json!({"vm": self.vm}));
        self.said.push(format!("delete-vm, with its snapshots: {with_vm}"));
        self.lab.ok("delete-vm", json!({"vm": self.vm, "delete_snapshots": with_vm}));
        self.model.without_vm();
        for (id, disk) in &self.model.disks {
            shows(self.volume(id)["path"].as_str().unwrap(), &disk.content, id);
        }
        // The one that goes first lets go of the image on which both stand, and that is merged with the other.
        for id in self.model.disks.keys() {
            self.lab.ok("delete-volume", json!({"volume": id}));
        }
        eventually("no snapshot is left", END, || {
            (self.lab.ok("list-snapshots", json!({"vm": vm["id"]}))["total"] == 0).then_some(())
        });
        let template = self.lab.ok("describe-template", json!({"template": "blank"}))["copies"][0]["path"].clone();
        eventually(&format!("no file is left: {:?}", self.lab.files()), END, || {
            (self.lab.files().iter().all(|file| template == **file)).then_some(())
        });
    }
}

/// Fails unless an image, read past everybody else, has these patterns, and zeros elsewhere.
#[track_caller]
fn shows(path: &str, content: &Content, what: &str) {
    let mut command = Command::new("qemu-io");
    command.args(["-r", "-U", "-f", "qcow2"]);
    for place in &content.known {
        let pattern = content.places.get(place).unwrap_or(&0);
        command.args(["-c", &format!("read -P {pattern} {place} 64k")]);
    }
    let output = command.arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !text.contains("failed"), "{what}, {path}: {text}\n{content:?}");
}

fn sequence(lab: &mut Lab, far: bool, seed: u64, calls: u64) {
    let mut play = Play {
        far,
        dice: Dice::new(seed),
        model: Model::default(),
        vm: format!("vm-{seed}"),
        names: 0,
        said: Vec::new(),
        lab,
    };
    let request = json!({"name": play.vm, "template": "blank", "vcpus": 1, "memory_mib": 64});
    let vm = play.lab.ok("create-vm", request);
    let data = play.lab.ok("create-volume", json!({"name": format!("data-{seed}"), "size_gib": 1}));
    play.lab.ok("attach-volume", json!({"vm": play.vm, "volume": data["id"]}));
    let system = play.volume(vm["disks"][0]["volume"].as_str().unwrap());
    play.model.begin(&system, &data);
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..calls {
            play.act();
            play.check();
        }
    }));
    if let Err(panic) = told {
        eprintln!("sequence {seed}: {:#?}\n{:#?}\n{:#?}", play.said, play.model, play.snapshots());
        std::panic::resume_unwind(panic);
    }
    play.end();
}

#[test]
fn random_sequences_of_snapshots() {
    sequences(Lab::own(), std::env::var_os("VMYARD_TEST_REMOTE").is_some(), SEQUENCES);
}

/// Images that no VM is on are merged by QEMU in a domain of our own.
#[test]
fn random_sequences_on_a_node_over_tcp() {
    sequences(Lab::remote(), true, FAR_SEQUENCES);
}

fn sequences(mut lab: Lab, far: bool, how_many: (u64, u64)) {
    let time = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 % 1_000_000;
    let seed = number("VMYARD_TEST_SEED").unwrap_or(time);
    let full = std::env::var_os("VMYARD_TEST_FULL").is_some();
    let sequences = number("VMYARD_TEST_SEQUENCES").unwrap_or(if full { how_many.1 } else { how_many.0 });
    let begun = std::time::Instant::now();
    register_blank(&lab);
    let calls = if full { CALLS.1 } else { CALLS.0 };
    for one in seed..seed + sequences {
        println!("VMYARD_TEST_SEED={one} VMYARD_TEST_SEQUENCES=1");
        sequence(&mut lab, far, one, calls);
    }
    lab.ok("delete-template", json!({"template": "blank"}));
    crate::crash::nothing_is_left(&lab, "all sequences");
    println!("VMYARD_TEST_SEED={seed}: {sequences} sequences of {calls} calls in {:?}", begun.elapsed());
}
