//! Copies of volumes, on a real libvirtd at `LIBVIRT_TEST_URI` (`qemu:///system`, for example); it needs root on the same
//! machine, and makes and removes things whose names begin with `hypervisor-test-`. Run with `--ignored`.
#![allow(clippy::unwrap_used, missing_docs)]

use hypervisor::{ErrorKind, Node, NodeConfig, NodeUri, VirtTypeSetting, storage::Backing};
use std::{
    fs::File,
    os::unix::fs::{FileExt, MetadataExt},
    path::PathBuf,
    time::Duration,
};
use tokio::sync::mpsc;
use uuid::Uuid;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A node with two pools, gone when this is dropped.
struct Lab {
    node: Node,
    from: Uuid,
    to: Uuid,
    pools: [libvirt::Pool; 2],
    dir: PathBuf,
}

fn uri() -> String {
    std::env::var("LIBVIRT_TEST_URI").unwrap_or_else(|_| "qemu:///system".to_owned())
}

async fn node(name: &str) -> Node {
    let config = NodeConfig {
        name: name.to_owned(),
        uri: NodeUri::new(&uri()),
        virt_type: VirtTypeSetting::default(),
        owner: Uuid::nil(),
    };
    let node = Node::spawn(config, mpsc::unbounded_channel().0).unwrap();
    node.reach(Duration::from_secs(20)).await.unwrap();
    node
}

impl Lab {
    async fn new(name: &str) -> Lab {
        let dir = PathBuf::from(format!("/var/tmp/hypervisor-test-{name}"));
        let _ = std::fs::remove_dir_all(&dir);
        let connection = libvirt::Connect::open(&uri()).unwrap();
        let pools = ["from", "to"].map(|part| {
            let (name, path) = (format!("hypervisor-test-{name}-{part}"), dir.join(part));
            if let Ok(old) = connection.pool_by_name(&name) {
                old.destroy().unwrap();
            }
            std::fs::create_dir_all(&path).unwrap();
            let path = path.display();
            let xml = format!("<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>");
            connection.create_pool(&xml, 0).unwrap()
        });
        let [from, to] = [&pools[0], &pools[1]].map(|pool| Uuid::from_bytes(pool.uuid()));
        Lab { node: node("one").await, from, to, pools, dir }
    }

    /// A file in the first pool, with a block of bytes at each of these places.
    async fn file(&self, name: &str, length: u64, blocks: &[(u64, usize)]) -> PathBuf {
        let path = self.dir.join("from").join(name);
        let file = File::create_new(&path).unwrap();
        file.set_len(length).unwrap();
        for (at, len) in blocks {
            file.write_all_at(&vec![b'x'; *len], *at).unwrap();
        }
        file.sync_all().unwrap();
        self.node.refresh_pool(self.from).await.unwrap();
        path
    }

    fn copy(&self, name: &str) -> PathBuf {
        self.dir.join("to").join(name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for pool in &self.pools {
            let _ = pool.destroy();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn same(one: &PathBuf, other: &PathBuf) {
    let [one, other] = [one, other].map(|path| File::open(path).unwrap());
    let length = one.metadata().unwrap().len();
    assert_eq!(other.metadata().unwrap().len(), length);
    let (mut ours, mut theirs) = (vec![0; MIB as usize], vec![0; MIB as usize]);
    for at in (0..length).step_by(MIB as usize) {
        let len = MIB.min(length - at) as usize;
        one.read_exact_at(&mut ours[..len], at).unwrap();
        other.read_exact_at(&mut theirs[..len], at).unwrap();
        assert!(ours[..len] == theirs[..len], "the MiB at {at} differs");
    }
}

/// Blocks around the ends of the parts that a node is asked for, in holes and out of them.
const BLOCKS: [(u64, usize); 6] = [
    (0, 4096),
    (64 * MIB - 4096, 8192),
    (128 * MIB, 3 << 20),
    (400 * MIB, 100 << 20),
    (700 * MIB - 4096, 4096),
    (900 * MIB + 4096, 64 << 10),
];

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn copies_on_one_node_and_between_two_keep_their_holes() {
    let lab = Lab::new("holes").await;
    let second = node("two").await;
    for (name, length, blocks) in [
        ("blocks", GIB + 512, &BLOCKS[..]),
        ("trailing", 300 * MIB + 512, &BLOCKS[..1]),
        ("full", 3 * MIB, &[(0, 3 << 20)]),
        ("hole", 4 * GIB, &[]),
        ("short", 100, &[(0, 100)]),
        ("empty", 0, &[]),
    ] {
        let from = lab.file(name, length, blocks).await;
        let taken = std::fs::metadata(&from).unwrap().blocks() * 512;
        let (told, heard) = std::sync::mpsc::channel();
        let (again, heard_again) = std::sync::mpsc::channel();
        let copied = lab
            .node
            .copy_volume((lab.from, name), length, (lab.to, name), "0600", move |copied| told.send(copied).is_ok());
        let (node, sent) = (&lab.node, format!("{name}-sent"));
        let sending = node.send_volume((lab.from, name), length, &second, (lab.to, &sent), "0444", move |copied| {
            again.send(copied).is_ok()
        });
        for (volume, mode, heard) in
            [(copied.await.unwrap(), 0o600, heard), (sending.await.unwrap(), 0o444, heard_again)]
        {
            assert_eq!((volume.physical, volume.path.as_str()), (length, lab.copy(&volume.name).to_str().unwrap()));
            let copy = std::fs::metadata(&volume.path).unwrap();
            assert_eq!(copy.mode() & 0o777, mode);
            same(&from, &lab.copy(&volume.name));
            assert!(copy.blocks() * 512 <= taken + 64 * 1024, "{name}: {} of {taken}", copy.blocks() * 512);
            assert_eq!(heard.into_iter().max().unwrap_or(0), length);
        }
    }
    let (raw, tiny) = ((lab.from, "hole"), (lab.from, "short"));
    second.send_image(raw, 4 * GIB, &lab.node, (lab.to, "a"), "0444", |_| true).await.unwrap();
    let refused = second.send_image(tiny, 100, &lab.node, (lab.to, "b"), "0444", |_| true).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Refused, "{refused}");
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn an_overlay_is_copied_with_its_header() {
    let lab = Lab::new("overlay").await;
    let base = lab.file("base", 10 * MIB, &[(0, 4096)]).await;
    let backing = Backing { path: base.display().to_string(), format: "raw".to_owned() };
    let overlay = lab.node.create_overlay(lab.from, "overlay", 20 * MIB, &backing).await.unwrap();
    let length = lab.node.volume(lab.from, "overlay").await.unwrap().unwrap().physical;
    let copy = lab.node.copy_volume((lab.from, "overlay"), length, (lab.from, "copy"), "0600", |_| true).await.unwrap();
    assert_eq!((copy.format.as_str(), copy.capacity, &copy.backing), ("qcow2", 20 * MIB, &Some(backing.path)));
    same(&overlay.into(), &copy.path.into());
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_source_that_changes_or_a_cancelled_copy_or_a_taken_name() {
    let lab = Lab::new("changes").await;
    let path = lab.file("disk", 512 * MIB, &[(0, 256 << 20)]).await;
    let copy = async |length, name: &'static str, progress: Box<dyn Fn(u64) -> bool + Send>| {
        lab.node
            .copy_volume((lab.from, "disk"), length, (lab.to, name), "0600", progress)
            .await
            .map(|volume| volume.name)
    };
    let changed = copy(GIB, "other-length", Box::new(|_| true)).await.unwrap_err();
    assert!(changed.cause.contains("changed"), "{changed}");
    assert!(!lab.copy("other-length").exists());
    for (name, length) in [("longer", 600 * MIB), ("shorter", 100 * MIB)] {
        let file = File::options().write(true).open(&path).unwrap();
        let at_once = Box::new(move |_| file.set_len(length).is_ok());
        let changed = copy(512 * MIB, name, at_once).await.unwrap_err();
        assert!(changed.cause.contains("changed"), "{name}: {changed}");
        File::options().write(true).open(&path).unwrap().set_len(512 * MIB).unwrap();
    }
    let file = File::options().write(true).open(&path).unwrap();
    let other_header = Box::new(move |_| file.write_all_at(b"QFI\xfb", 0).is_ok());
    let changed = copy(512 * MIB, "header", other_header).await.unwrap_err();
    assert!(changed.cause.contains("changed"), "{changed}");

    let cancelled = copy(512 * MIB, "cancelled", Box::new(|copied| copied < MIB)).await.unwrap_err();
    assert!(cancelled.cause.contains("cancelled"), "{cancelled}");
    assert!(lab.node.delete_volume(lab.to, "cancelled").await.unwrap());
    copy(512 * MIB, "taken", Box::new(|_| true)).await.unwrap();
    assert_eq!(copy(512 * MIB, "taken", Box::new(|_| true)).await.unwrap_err().kind, ErrorKind::Exists);
    lab.node.settle(None, "look").unwrap();
}
