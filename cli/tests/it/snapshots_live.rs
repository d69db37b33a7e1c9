//! What a guest notices of snapshots, merges, attaching and detaching while it writes. Its figures mean something on a machine
//! that does nothing else: `make test-full`, or this test alone with `--ignored --nocapture`.

use crate::{
    lab::{Lab, SOON, TestVm, eventually},
    snapshots::{agrees, at, chain, now},
};
use serde_json::{Value, json};

/// The longest time between two lines, without memory being saved, in seconds.
const GAP_S: f64 = 1.0;

/// Lets the guest write numbered lines with the time of its clock to a disk, each written through.
fn write_lines(vm: &TestVm<'_>, device: &str) {
    vm.run(&format!(
        "(i=0; while :; do i=$((i+1)); read now rest </proc/uptime; echo $i $now | dd of=/dev/{device} bs=512 seek=$i conv=sync,fsync,notrunc 2>/dev/null; echo $i >/tmp/at; done) >/dev/null 2>&1 &"
    ));
    eventually("it writes", SOON, || (at(vm) > 5).then_some(()));
}

/// Reads the lines `from` to now back from the disk: how many there are without one missing, and the longest gap.
fn lines(vm: &TestVm<'_>, device: &str, from: u64) -> (u64, f64) {
    let count = at(vm) - from;
    let told = vm.run(&format!(
        "dd if=/dev/{device} bs=512 skip={} count={count} 2>/dev/null | tr -d '\\000' | awk -v n={from} '
         {{ n++; if ($1 != n) {{ print \"lost\", n; exit }} if (NR > 1 && $2 - t > gap) gap = $2 - t; t = $2 }} END {{ print NR, gap }}'",
        from + 1
    ));
    let mut words = told.split_whitespace();
    let read = words.next().unwrap().parse().unwrap_or_else(|_| panic!("{told}"));
    assert_eq!(read, count, "{told}");
    (read, words.next().map_or(0.0, |gap| gap.parse().unwrap()))
}

#[test]
#[ignore = "its figures need a quiet machine"]
fn no_line_is_lost() {
    let lab = Lab::own();
    let vm = lab.create_with("writer", json!({"memory_mib": 256}));
    let [data, other] = ["data", "other"].map(|name| lab.ok("create-volume", json!({"name": name, "size_gib": 1})));
    vm.ok("attach-volume", json!({"volume": data["id"]}));
    let vm = vm.start().ready();
    write_lines(&vm, "vdb");
    // What needs no memory to be saved.
    let from = at(&vm);
    for turn in 0..5 {
        let taken = vm.ok("create-snapshot", json!({"name": format!("disk-{turn}")}));
        assert_eq!((&taken["pause_ms"], &taken["quiesced"]), (&json!(0), &json!(true)));
    }
    vm.ok("attach-volume", json!({"volume": other["id"]}));
    for turn in [1, 4, 0, 3, 2] {
        let gone = vm.ok("delete-snapshot", json!({"snapshot": format!("disk-{turn}")}));
        assert_eq!(gone["pending"], Value::Null, "{gone}");
    }
    vm.ok("detach-volume", json!({"volume": other["id"], "timeout_s": 60}));
    agrees(&lab, &vm.name);
    let (read, gap) = lines(&vm, "vdb", from);
    println!("disk only: {read} lines, longest gap {gap} s");
    assert!(gap < GAP_S, "a gap of {gap} s");
    // With memory, and the merges of that.
    let from = at(&vm);
    for turn in 0..5 {
        let taken = vm.ok("create-snapshot", json!({"name": format!("memory-{turn}"), "memory": true}));
        println!("256 MiB: pause of {} ms", taken["pause_ms"]);
        assert!(taken["pause_ms"].as_u64().unwrap() < 1000, "{taken}");
    }
    for turn in [1, 4, 0, 3, 2] {
        vm.ok("delete-snapshot", json!({"snapshot": format!("memory-{turn}")}));
    }
    agrees(&lab, &vm.name);
    let (read, gap) = lines(&vm, "vdb", from);
    println!("with memory: {read} lines, longest gap {gap} s");
    assert_eq!(chain(&now(&lab, &data)).len(), 1);
    vm.delete();

    for memory_mib in [1024, 4096] {
        let vm = lab.create_with("large", json!({"memory_mib": memory_mib})).start().ready();
        // Memory that was never touched is not written.
        vm.run(&format!(
            "mount -t tmpfs -o size={}m none /mnt 2>/dev/null; head -c {}m /dev/urandom >/mnt/fill",
            memory_mib / 2,
            memory_mib / 4
        ));
        for _ in 0..3 {
            let taken = vm.ok("create-snapshot", json!({"name": "m", "memory": true}));
            let size = lab.ok("describe-snapshot", json!({"snapshot": taken["id"]}))["size_bytes"].clone();
            println!(
                "{memory_mib} MiB: pause of {} ms, {} MiB written",
                taken["pause_ms"],
                size.as_u64().unwrap_or(0) >> 20
            );
            assert!(taken["pause_ms"].as_u64().unwrap() < 1000, "{taken}");
            vm.ok("delete-snapshot", json!({"snapshot": "m"}));
        }
        vm.delete();
    }
    for volume in [data, other] {
        lab.ok("delete-volume", json!({"volume": volume["id"]}));
    }
}
