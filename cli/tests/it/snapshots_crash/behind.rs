//! What QEMU does behind libvirt's back, as if libvirtd had been killed before it noted what it had it do.

use super::scene::Scene;
use crate::{lab::eventually, snapshots};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{
        fs::{MetadataExt, chown},
        net::UnixStream,
    },
};

impl Scene<'_> {
    /// Sends QMP to a running VM's QEMU, through libvirt; gives what it returns.
    #[track_caller]
    pub fn qmp(&self, execute: &str, arguments: Value) -> Value {
        let command = json!({"execute": execute, "arguments": arguments}).to_string();
        let said = self.lab.node.virsh(&["qemu-monitor-command", &self.domain, &command]);
        let mut said: Value = serde_json::from_str(&said).unwrap();
        assert!(said["error"].is_null(), "{command}: {said}");
        said["return"].take()
    }

    /// Has QEMU go on in the overlays that a dead server has made, without libvirt's knowing it.
    pub fn snapshot_behind_libvirt(&self, disks: &[Value; 2]) {
        let actions = self.open_behind_libvirt(disks);
        self.qmp("transaction", json!({"actions": actions}));
    }

    /// Has QEMU open the overlays that a dead server has made, without libvirt's knowing it; gives what has it go on in them.
    pub fn open_behind_libvirt(&self, disks: &[Value; 2]) -> Vec<Value> {
        let (mut actions, devices) = (Vec::new(), self.qmp("query-block", json!({})));
        for (number, disk) in disks.iter().enumerate() {
            let path = &disk["path"];
            let files = fs::read_dir(self.lab.node.dir.join("pools/default")).unwrap();
            let files = files.map(|file| file.unwrap().path().display().to_string());
            let on_it =
                |file: &String| snapshots::chain(&json!({"path": file})).get(1).map(String::as_str) == path.as_str();
            let overlay = files.filter(|file| file.ends_with(".qcow2")).find(on_it).unwrap();
            let owner = fs::metadata(path.as_str().unwrap()).unwrap();
            chown(&overlay, Some(owner.uid()), Some(owner.gid())).unwrap();
            let (file, top) = (format!("libvirt-9{number}-storage"), format!("libvirt-9{number}-format"));
            self.qmp("blockdev-add", json!({"driver": "file", "filename": overlay, "node-name": file}));
            self.qmp("blockdev-add", json!({"driver": "qcow2", "file": file, "backing": null, "node-name": top}));
            let device = devices.as_array().unwrap().iter().find(|device| device["inserted"]["file"] == *path).unwrap();
            let data = json!({"node": device["inserted"]["node-name"], "overlay": top});
            actions.push(json!({"type": "blockdev-snapshot", "data": data}));
        }
        actions
    }

    /// What QEMU calls the images that it has open.
    pub fn open_images(&self) -> BTreeSet<String> {
        let nodes = self.qmp("query-named-block-nodes", json!({"flat": true}));
        nodes.as_array().unwrap().iter().map(|node| node["node-name"].as_str().unwrap().to_owned()).collect()
    }

    /// Has QEMU merge the images that both disks are on into those below, of which libvirt sees the begin and not the end.
    pub fn merge_behind_libvirt(&self, disks: &[Value; 2]) {
        let xml = self.lab.node.virsh(&["dumpxml", &self.domain]);
        for disk in disks {
            let path = disk["path"].as_str().unwrap();
            let target =
                xml.split(path).nth(1).unwrap().split("<target dev='").nth(1).unwrap().split('\'').next().unwrap();
            self.lab.node.virsh(&["blockcommit", &self.domain, target, "--active", "--shallow"]);
        }
        eventually("both jobs are ready", crate::lab::SOON, || {
            let jobs = self.qmp("query-jobs", json!({}));
            let ready = jobs.as_array().unwrap().iter().filter(|job| job["status"] == "ready").count();
            (ready == 2).then_some(())
        });
        self.lab.node.command("kill-libvirtd");
        let sockets = fs::read_dir(self.lab.node.dir.join("lib/qemu")).unwrap().flatten();
        let socket = sockets.map(|dir| dir.path().join("monitor.sock")).find(|socket| socket.exists()).unwrap();
        let mut monitor = Monitor::open(UnixStream::connect(socket).unwrap());
        let jobs = monitor.ask("query-jobs", json!({}));
        for job in jobs.as_array().unwrap() {
            let id = json!({"id": job["id"]});
            monitor.ask("job-complete", id.clone());
            eventually("the job is concluded", crate::lab::SOON, || {
                let jobs = monitor.ask("query-jobs", json!({}));
                let ours = jobs.as_array().unwrap().iter().find(|one| one["id"] == job["id"]).unwrap();
                (ours["status"] == "concluded").then_some(())
            });
            monitor.ask("job-dismiss", id);
        }
        drop(monitor);
        self.lab.node.command("start-libvirtd");
    }
}

/// QEMU's monitor, while no libvirtd is there that has it.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn open(stream: UnixStream) -> Monitor {
        let mut monitor = Monitor(BufReader::new(stream));
        monitor.ask("qmp_capabilities", json!({}));
        monitor
    }

    fn ask(&mut self, execute: &str, arguments: Value) -> Value {
        writeln!(self.0.get_mut(), "{}", json!({"execute": execute, "arguments": arguments})).unwrap();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let mut said: Value = serde_json::from_str(&line).unwrap();
            assert!(said["error"].is_null(), "{execute}: {said}");
            // The greeting and events come in between.
            if !said["return"].is_null() {
                return said["return"].take();
            }
        }
    }
}
