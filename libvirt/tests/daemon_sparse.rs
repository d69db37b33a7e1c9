//! Sparse streams, against a real daemon as in `daemon.rs`. Run with `--ignored`.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use libvirt::{Connect, ErrorCode, Piece, Pool, Stream, Volume, flags};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A pool with its directory, gone when this is dropped.
struct Scratch {
    conn: Connect,
    pool: Pool,
}

impl Scratch {
    fn new(name: &str) -> Scratch {
        let uri = std::env::var("LIBVIRT_TEST_URI").unwrap_or_else(|_| "qemu:///system".to_owned());
        let conn = Connect::open(&uri).unwrap();
        let (name, path) = (format!("libvirt-test-{name}"), Path::new("/var/tmp").join(format!("libvirt-test-{name}")));
        if let Ok(old) = conn.pool_by_name(&name) {
            old.destroy().unwrap();
        }
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        let path = path.display();
        let xml = format!("<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>");
        let pool = conn.create_pool(&xml, 0).unwrap();
        Scratch { conn, pool }
    }

    fn volume(&self, name: &str, length: u64) -> Volume {
        let xml = format!(
            "<volume><name>{name}</name><capacity>{length}</capacity><allocation>0</allocation>\
             <target><format type='raw'/></target></volume>"
        );
        self.pool.create_volume(&xml, 0).unwrap()
    }

    /// A sparse volume with a block of bytes at each of these places.
    fn with_blocks(&self, name: &str, length: u64, blocks: &[(u64, usize)]) -> Volume {
        let volume = self.volume(name, length);
        let file = File::options().write(true).open(volume.path().unwrap()).unwrap();
        for (at, len) in blocks {
            file.write_all_at(&vec![b'x'; *len], *at).unwrap();
        }
        file.sync_all().unwrap();
        volume
    }

    /// Downloads one and uploads what comes into the other; returns what came, neighbours joined.
    fn copy(&self, from: &Volume, to: &Volume, (offset, length): (u64, u64)) -> Vec<Piece> {
        let (down, up) = (Stream::new(&self.conn, 0).unwrap(), Stream::new(&self.conn, 0).unwrap());
        from.download(&down, offset, length, flags::VOL_DOWNLOAD_SPARSE_STREAM).unwrap();
        to.upload(&up, offset, length, flags::VOL_UPLOAD_SPARSE_STREAM).unwrap();
        let (mut buffer, mut came) = (vec![0; 1 << 20], Vec::new());
        loop {
            let piece = down.recv_piece(&mut buffer).unwrap();
            match piece {
                Piece::Data(len) => up.send_all(&buffer[..len]).unwrap(),
                Piece::Hole(length) => up.send_hole(length).unwrap(),
                Piece::End => break,
            }
            match (came.last_mut(), piece) {
                (Some(Piece::Data(before)), Piece::Data(len)) => *before += len,
                (Some(Piece::Hole(before)), Piece::Hole(len)) => *before += len,
                _ => came.push(piece),
            }
        }
        down.finish().unwrap();
        up.finish().unwrap();
        came
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.pool.destroy();
        let _ = std::fs::remove_dir_all(format!("/var/tmp/{}", self.pool.name()));
    }
}

/// Length and allocation.
fn sizes(volume: &Volume) -> (u64, u64) {
    let metadata = std::fs::metadata(volume.path().unwrap()).unwrap();
    (metadata.len(), metadata.blocks() * 512)
}

fn same(one: &Volume, other: &Volume) {
    let [one, other] = [one, other].map(|volume| File::open(volume.path().unwrap()).unwrap());
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

#[test]
#[ignore = "needs libvirtd"]
fn holes_are_kept() {
    let scratch = Scratch::new("sparse-holes");
    let blocks = [(0, 65536), (300 * MIB, 4096), (GIB - 65536, 65536)];
    let from = scratch.with_blocks("from", GIB, &blocks);
    let to = scratch.volume("to", GIB);
    let came = scratch.copy(&from, &to, (0, GIB));
    let hole = |from: u64, to: u64| Piece::Hole(to - from);
    let expected = [
        Piece::Data(65536),
        hole(65536, 300 * MIB),
        Piece::Data(4096),
        hole(300 * MIB + 4096, GIB - 65536),
        Piece::Data(65536),
    ];
    assert_eq!(came, expected);
    same(&from, &to);
    assert_eq!(sizes(&to), sizes(&from));

    // Without the flag all zeroes come.
    let plain = Stream::new(&scratch.conn, 0).unwrap();
    from.download(&plain, 65536, 2 * MIB, 0).unwrap();
    let mut buffer = vec![1; 1 << 16];
    assert!(
        matches!(plain.recv_piece(&mut buffer).unwrap(), Piece::Data(len) if buffer[..len].iter().all(|b| *b == 0))
    );
    assert_eq!(plain.recv_piece(&mut []).unwrap_err().code, ErrorCode::INVALID_ARG);
}

#[test]
#[ignore = "needs libvirtd"]
fn a_hole_at_the_end_and_nothing_but_a_hole_and_nothing() {
    let scratch = Scratch::new("sparse-ends");
    let end = 10 * MIB + 512;
    for (name, length, blocks, expected) in [
        ("trailing", end, &[(0, 4096)][..], &[Piece::Data(4096), Piece::Hole(end - 4096)][..]),
        ("hole", GIB + 512, &[], &[Piece::Hole(GIB + 512)]),
        ("empty", 0, &[], &[]),
    ] {
        let from = scratch.with_blocks(name, length, blocks);
        let to = scratch.volume(&format!("{name}-copy"), length);
        assert_eq!(scratch.copy(&from, &to, (0, length)), expected, "{name}");
        same(&from, &to);
        assert_eq!(sizes(&to), sizes(&from), "{name}");
    }
}

#[test]
#[ignore = "needs libvirtd"]
fn a_part_of_a_volume() {
    let scratch = Scratch::new("sparse-part");
    let from = scratch.with_blocks("from", GIB, &[(0, 65536), (300 * MIB, 4096)]);
    let to = scratch.volume("to", GIB);
    // Holes are cut off at the part's ends.
    assert_eq!(scratch.copy(&from, &to, (100 * MIB, 50 * MIB)), [Piece::Hole(50 * MIB)]);
    let expected = [Piece::Hole(100 * MIB), Piece::Data(4096), Piece::Hole(100 * MIB - 4096)];
    assert_eq!(scratch.copy(&from, &to, (200 * MIB, 200 * MIB)), expected);
    assert_eq!(sizes(&to).0, 400 * MIB, "cut off behind the last hole");
}

#[test]
#[ignore = "needs libvirtd"]
fn a_hole_that_nobody_expects() {
    let scratch = Scratch::new("sparse-refused");
    let to = scratch.volume("to", MIB);
    let stream = Stream::new(&scratch.conn, 0).unwrap();
    to.upload(&stream, 0, MIB, 0).unwrap();
    let sent = stream.send_hole(MIB).and_then(|()| stream.finish());
    assert!(sent.is_err());
    let stream = Stream::new(&scratch.conn, 0).unwrap();
    to.upload(&stream, 0, MIB, flags::VOL_UPLOAD_SPARSE_STREAM).unwrap();
    assert_eq!(stream.send_hole(u64::MAX).unwrap_err().code, ErrorCode::INVALID_ARG);
    stream.send_hole(0).unwrap();
    stream.send_hole(MIB).unwrap();
    stream.finish().unwrap();
    assert!(scratch.conn.is_alive());
}
