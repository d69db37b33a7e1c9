//! What VMs have used: figures beside what was counted elsewhere, bad input, and a history that outlives faults.

use crate::access::token;
use crate::lab::{
    Lab, SOON, TestVm, cached, eventually, http_client, request, tiny,
    trouble::{Clock, Cramped},
};
use api::Time;
use serde_json::{Value, json};
use std::{fs, process::Command, time::Duration};

/// A sample a second.
const FAST: &str = "\n[metrics]\ninterval_s = 1\n";

fn metrics(vm: &TestVm<'_>, more: Value) -> Value {
    vm.ok("describe-vm-metrics", more)
}

/// The values of a series.
fn values<'a>(metrics: &'a Value, name: &str, part: Option<&str>) -> Option<&'a Vec<Value>> {
    let is_it =
        |series: &&Value| series["name"] == name && series["device"].as_str().or(series["source"].as_str()) == part;
    metrics["series"].as_array().unwrap().iter().find(is_it)?["values"].as_array()
}

/// A rate, summed up over all steps. After a sample that a busy machine has missed, the next one's rate is that of the time before
/// it, too.
fn total(metrics: &Value, name: &str, part: Option<&str>) -> f64 {
    let values = values(metrics, name, part).unwrap_or_else(|| panic!("no {name} of {part:?}: {metrics}"));
    let mut missed = 0;
    let mut sum = 0.0;
    for value in values {
        match value.as_f64() {
            Some(value) => {
                sum += value * f64::from(1 + missed);
                missed = 0;
            }
            None => missed += 1,
        }
    }
    sum * metrics["step_s"].as_f64().unwrap()
}

/// How many steps of a series have a value.
fn known(metrics: &Value, name: &str) -> usize {
    values(metrics, name, None).map_or(0, |values| values.iter().filter(|value| !value.is_null()).count())
}

fn second(at: Time) -> i64 {
    at.0 / 1000
}

/// Waits until all that was measured between two times is there.
#[track_caller]
fn whole(vm: &TestVm<'_>, start: Time, end: Time) -> Value {
    let (start, end) = (Time(second(start) * 1000), Time((second(end) + 2) * 1000));
    eventually("all samples are there", SOON, || {
        let later = metrics(vm, json!({"start": end, "end": Time(end.0 + 100_000), "step_s": 1}));
        (known(&later, "cpu_percent") > 0).then(|| metrics(vm, json!({"start": start, "end": end, "step_s": 1})))
    })
}

#[track_caller]
fn close(what: &str, measured: f64, counted: f64, slack: f64) {
    println!("{what}: measured {measured:.1}, counted {counted:.1}");
    assert!((measured - counted).abs() <= counted * 0.05 + slack, "{what}: measured {measured}, counted {counted}");
}

/// Numbers of a file in the guest.
fn numbers(vm: &TestVm<'_>, file: &str) -> Vec<f64> {
    vm.run(&format!("cat {file}")).split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// CPU time of the VM's virtual CPUs as the host counts it, in seconds.
fn cpu_time(pid: &str) -> f64 {
    let mut ticks = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.starts_with("CPU ") {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap();
            let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            ticks += fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>();
        }
    }
    ticks / 100.0
}

#[test]
fn figures_are_what_was_counted() {
    let lab = Lab::with_settings(FAST);
    let vm = lab.create("busy").start().ready();
    lab.ok("create-volume", json!({"name": "data", "size_gib": 1, "node": "local"}));
    vm.ok("attach-volume", json!({"volume": "data"}));
    let mac = vm.describe()["networks"][0]["mac"].as_str().unwrap().to_owned();
    vm.address();
    // The first rate of the new disk: from then on nothing is missed.
    eventually("the new disk is measured", SOON, || {
        let metrics = metrics(&vm, json!({}));
        values(&metrics, "disk_write_iops", Some("vdb"))?.last()?.is_number().then_some(())
    });
    let gateway = vm.run("ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'");
    let pid = vm.qemu();
    let net = |name: &str| numbers(&vm, &format!("/sys/class/net/eth0/statistics/{name}"))[0];
    let nets = ["rx_bytes", "tx_bytes", "rx_packets", "tx_packets"];

    let start = Time::now();
    std::thread::sleep(Duration::from_millis(1100));
    let (cpu, before) = (cpu_time(&pid), (numbers(&vm, "/sys/block/vdb/stat"), nets.map(net)));
    // Over several samples: one that comes late makes its rate less, and the next one's more.
    vm.run("for n in 0 1 2 3 4 5; do dd if=/dev/zero of=/dev/vdb bs=1M count=8 seek=$((n*8)) conv=fsync 2>/dev/null; sleep 1; done");
    vm.run("echo 3 >/proc/sys/vm/drop_caches; for n in 0 1 2 3; do dd if=/dev/vdb of=/dev/null bs=1M count=8 skip=$((n*8)) 2>/dev/null; sleep 1; done");
    vm.run(&format!("ping -q -c 200 -s 1400 -i 0.02 {gateway} >/dev/null"));
    vm.run("i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done");
    let (after, used) = ((numbers(&vm, "/sys/block/vdb/stat"), nets.map(net)), cpu_time(&pid) - cpu);
    std::thread::sleep(Duration::from_millis(1100));
    let measured = whole(&vm, start, Time::now());

    // https://docs.kernel.org/block/stat.html: requests read, merged, sectors read, ticks, requests written, merged, sectors written.
    let disk = |field: usize| after.0[field] - before.0[field];
    for (name, counted) in [
        ("disk_read_bytes_per_s", disk(2) * 512.0),
        ("disk_write_bytes_per_s", disk(6) * 512.0),
        ("disk_read_iops", disk(0)),
    ] {
        close(name, total(&measured, name, Some("vdb")), counted, 1.0);
        assert!(total(&measured, name, None) >= total(&measured, name, Some("vdb")) * 0.99, "{name}");
    }
    // The guest counts its flushes apart.
    assert!(total(&measured, "disk_write_iops", Some("vdb")) > 0.0);
    for (name, at) in
        [("net_rx_bytes_per_s", 0), ("net_tx_bytes_per_s", 1), ("net_rx_packets_per_s", 2), ("net_tx_packets_per_s", 3)]
    {
        // A few packets of the network's own come any time.
        let slack = if name.contains("bytes") { 4000.0 } else { 30.0 };
        close(name, total(&measured, name, Some(&mac)), after.1[at] - before.1[at], slack);
        close(name, total(&measured, name, None), after.1[at] - before.1[at], slack);
    }
    assert!(after.1[1] - before.1[1] > 200.0 * 1400.0);
    // On a busy machine the guest counts what it doesn't get: it is the host's count that is true. What it did before and after
    // isn't in that.
    close("cpu_percent", total(&measured, "cpu_percent", None) / 100.0, used, 1.5);

    // The guest's own word for its memory: /proc/meminfo, in KiB.
    let memory = |name: &str| numbers(&vm, &format!("/proc/meminfo | grep {name}"))[0] / 1024.0;
    let latest = eventually("the guest tells of its memory", SOON, || {
        let metrics = metrics(&vm, json!({}));
        values(&metrics, "memory_used_mib", Some("balloon"))?.last()?.as_f64()
    });
    close("memory_used_mib", latest, memory("MemTotal") - memory("MemAvailable"), 8.0);
    let usage = eventually("describe-vm has it", SOON, || vm.describe()["usage"].as_object().cloned());
    assert_eq!(usage["memory_source"], "balloon", "{usage:?}");
    assert!(usage["cpu_percent"].as_f64().is_some_and(|cpu| (0.0..=100.0).contains(&cpu)), "{usage:?}");

    // Off: wrong_state, but what was measured is there.
    vm.ok("stop-vm", json!({"force": true}));
    let problem = vm.err("describe-vm-metrics", json!({}), 409, "wrong_state");
    assert!(problem["hint"].as_str().unwrap().contains("history"), "{problem}");
    let end = Time(second(start) * 1000 + 60_000);
    let later = metrics(&vm, json!({"history": true, "start": start, "end": end, "step_s": 1}));
    assert!(known(&later, "cpu_percent") > 3);
    // A step that is longer is the average of the shorter ones.
    let one = metrics(&vm, json!({"history": true, "start": start, "end": Time(start.0 + 3_600_000), "step_s": 3600}));
    assert!(one["times"].as_array().unwrap().len() <= 2, "{one}");
    let most = json!({"history": true, "start": start, "end": end, "step_s": 30, "aggregate": "maximum"});
    let least = json!({"history": true, "start": start, "end": end, "step_s": 30, "aggregate": "minimum"});
    let of = |what| values(&metrics(&vm, what), "cpu_percent", None).unwrap()[0].as_f64().unwrap();
    assert!(of(most) >= of(least));
}

#[test]
#[ignore = "on a busy machine a guest counts CPU that it doesn't get: alone, or by `make test-full`"]
fn a_share_of_cpu_as_the_guest_counts_it() {
    let lab = Lab::with_settings(FAST);
    let vm = lab.create("half").start().ready();
    // https://docs.kernel.org/filesystems/proc.html, 1.7: user, nice, system, idle, iowait, irq, softirq, steal, in hundredths of a second.
    let count = || {
        let all = numbers(&vm, "/proc/stat | head -n 1");
        (all[0] + all[1] + all[2] + all[5] + all[6], all[..8].iter().sum::<f64>())
    };
    let start = Time::now();
    std::thread::sleep(Duration::from_millis(1100));
    let before = count();
    vm.run("for turn in 1 2 3 4 5 6 7 8; do i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; sleep 1; done");
    let after = count();
    std::thread::sleep(Duration::from_millis(1100));
    let measured = whole(&vm, start, Time::now());
    let (busy, all) = (after.0 - before.0, after.1 - before.1);
    println!("the guest was busy for {busy:.0} of {all:.0} ticks");
    assert!((0.1..0.9).contains(&(busy / all)), "{busy} of {all}");
    close("CPU seconds", total(&measured, "cpu_percent", None) / 100.0, busy / 100.0, 0.0);
    vm.ok("stop-vm", json!({"force": true}));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let lab = Lab::shared();
    let vm = lab.create("asked").start();
    let now = Time::now();
    let ago = |seconds: i64| Time(now.0 - seconds * 1000);
    let day = 24 * 3600;
    for (body, field, says) in [
        (json!({"start": now, "end": ago(60)}), "start", "must be before `end`"),
        (json!({"start": now, "end": now}), "start", "must be before `end`"),
        (json!({"start": ago(3650 * day), "end": now}), "start", "metrics are kept for 400 days"),
        (json!({"start": ago(23 * 3600), "step_s": 1, "end": now}), "", ""),
        (json!({"start": ago(120 * day), "end": now, "step_s": 10}), "", ""),
        (json!({"step_s": 0}), "step_s", ""),
        (json!({"step_s": -5}), "step_s", ""),
        (json!({"start": "2026-11-26T10:00:00"}), "start", "with a zone"),
        (json!({"start": "yesterday"}), "start", "must be a time"),
        (json!({"aggregate": "median"}), "aggregate", "average"),
        (json!({"from": now}), "from", ""),
    ] {
        let answer = vm.lab.server.call("describe-vm-metrics", {
            let mut body = body.clone();
            body["vm"] = json!(vm.name);
            body
        });
        if field.is_empty() {
            assert_eq!(answer.status, 200, "{body}: {answer:?}");
            continue;
        }
        assert_eq!((answer.status, &answer.body["code"]), (400, &json!("invalid")), "{body}: {answer:?}");
        let text = answer.body.to_string();
        assert!(text.contains(field) && text.contains(says), "{body}: {text}");
    }
    // The times of the ends of the world, and a step that would give a million points.
    for body in [
        json!({"start": "0001-01-01T00:00:00Z", "end": "9999-12-31T23:59:59Z"}),
        json!({"start": "9999-12-30T00:00:00Z", "end": "9999-12-31T23:59:59Z", "step_s": 1}),
    ] {
        vm.err("describe-vm-metrics", body, 400, "invalid");
    }
    lab.err("describe-vm-metrics", json!({"vm": "nobody"}), 404, "not_found");
    vm.ok("pause-vm", json!({}));
    vm.err("describe-vm-metrics", json!({}), 409, "wrong_state");
    metrics(&vm, json!({"history": true}));
}

#[test]
fn a_hung_qemu_keeps_no_other_from_being_measured() {
    let lab = Lab::with_settings(FAST);
    let (hung, other) = (lab.create("hung").start(), lab.create("other").start());
    let is_stale = |vm: &TestVm<'_>| {
        let list = lab.ok("list-vms", json!({"name": vm.name}));
        list["vms"][0]["stale"].as_bool().unwrap()
    };
    eventually("both are measured", SOON, || {
        (known(&metrics(&hung, json!({})), "cpu_percent") > 0 && known(&metrics(&other, json!({})), "cpu_percent") > 0)
            .then_some(())
    });
    let pid = hung.qemu();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    signal("-STOP");
    eventually("its row says that it is stale", SOON, || is_stale(&hung).then_some(()));
    let since = Time::now();
    eventually("the other one is measured all the time", SOON, || {
        let metrics = metrics(&other, json!({"start": since, "end": Time(since.0 + 60_000), "step_s": 1}));
        (known(&metrics, "cpu_percent") > 5 && known(&metrics, "disk_read_iops") > 5).then_some(())
    });
    assert!(!is_stale(&other) && is_stale(&hung));
    signal("-CONT");
    eventually("its row says that it is there", SOON, || (!is_stale(&hung)).then_some(()));
    let since = Time::now();
    eventually("it is measured again", SOON, || {
        let metrics = metrics(&hung, json!({"start": since, "end": Time(since.0 + 60_000), "step_s": 1}));
        (known(&metrics, "disk_read_iops") > 1).then_some(())
    });
}

#[test]
fn a_hung_qemu_is_told_by_the_next_sample() {
    // Which is 10 s later at most, and gives up after 3 more; a busy machine takes somewhat longer.
    let lab = Lab::own();
    let vm = lab.create("hangs").start();
    let is_stale = || lab.ok("list-vms", json!({}))["vms"][0]["stale"].as_bool().unwrap();
    eventually("it is measured", SOON, || vm.describe()["usage"].is_object().then_some(()));
    let pid = vm.qemu();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    signal("-STOP");
    let hung = std::time::Instant::now();
    eventually("its row says that it is stale", Duration::from_secs(30), || is_stale().then_some(()));
    println!("told after {:?}", hung.elapsed());
    signal("-CONT");
    eventually("its row says that it is there", SOON, || (!is_stale()).then_some(()));
}

#[test]
fn a_server_that_is_killed_forgets_nothing() {
    let mut lab = Lab::with_settings(FAST);
    let vm = lab.create("kept").start();
    let start = Time::now();
    let ask = |vm: &TestVm<'_>| metrics(vm, json!({"start": start, "end": Time(start.0 + 600_000), "step_s": 1}));
    eventually("some samples", SOON, || (known(&ask(&vm), "cpu_percent") > 6).then_some(()));
    let before = ask(&vm);
    let name = vm.name.clone();
    std::mem::forget(vm);
    lab.server.kill_and_restart(&[]);
    let vm = TestVm::new(&lab, lab.ok("describe-vm", json!({"vm": name})));
    eventually("more samples", SOON, || {
        let after = ask(&vm);
        (known(&after, "cpu_percent") > known(&before, "cpu_percent") + 2).then_some(())
    });
    let after = ask(&vm);
    let (before, after) = (values(&before, "cpu_percent", None).unwrap(), values(&after, "cpu_percent", None).unwrap());
    let lost = before.iter().zip(after).filter(|(before, after)| before.is_number() && before != after).count();
    assert!(lost <= 1, "{lost} samples were lost: {before:?} {after:?}");
}

#[test]
fn a_history_that_is_damaged_or_deleted_begins_anew() {
    let mut lab = Lab::with_settings(FAST);
    let vm = lab.create("lasting").start();
    let file = lab.dir.path.join("data/metrics.db");
    let measured = |vm: &TestVm<'_>, since: Time| {
        eventually("it is measured", SOON, || {
            let metrics = metrics(vm, json!({"start": since, "end": Time(since.0 + 120_000), "step_s": 1}));
            (known(&metrics, "cpu_percent") > 2).then_some(())
        });
    };
    measured(&vm, Time::now());
    // Deleted under a server that runs.
    fs::remove_file(&file).unwrap();
    eventually("it is there again", SOON, || file.exists().then_some(()));
    eventually("that is said", SOON, || lab.server.log().contains("has been deleted").then_some(()));
    measured(&vm, Time::now());
    // Damaged while none runs.
    let name = vm.name.clone();
    std::mem::forget(vm);
    assert!(lab.server.terminate());
    fs::write(
        &file,
        "this is no database, and never was one; it is only long enough to look like something".repeat(100),
    )
    .unwrap();
    lab.server.kill_and_restart(&[]);
    assert!(lab.server.log().contains("the history of metrics was damaged"), "{}", lab.server.log());
    let aside = fs::read_dir(lab.dir.path.join("data")).unwrap().flatten();
    assert!(aside.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("metrics.db.damaged-")));
    let vm = TestVm::new(&lab, lab.ok("describe-vm", json!({"vm": name})));
    measured(&vm, Time::now());
    vm.ok("stop-vm", json!({"force": true}));
}

#[test]
fn a_full_disk_costs_no_more_than_history() {
    let cramped =
        Cramped::start("1m", |node| format!("{node}\n[metrics]\ninterval_s = 1\nfile = \"SMALL/metrics.db\"\n"));
    let (server, ok) = (&cramped.server, |method: &str, body: Value| cramped.ok(method, body));
    ok("register-template", json!({"name": "tiny", "file": tiny()}));
    cramped.fill();
    ok("create-vm", request("goes-on", json!({"start": true})));
    let start = Time::now();
    eventually("it is noticed", SOON, || server.log().contains("history of metrics can't be written").then_some(()));
    let ask = || {
        let asked =
            json!({"vm": "goes-on", "start": start, "end": Time(start.0 + 600_000), "step_s": 1, "history": true});
        server.call("describe-vm-metrics", asked)
    };
    // What is in memory is answered all the same.
    eventually("it is measured", SOON, || {
        let answer = ask();
        (answer.status == 200 && known(&answer.body, "cpu_percent") > 3).then_some(())
    });
    ok("stop-vm", json!({"vm": "goes-on", "force": true}));
    ok("start-vm", json!({"vm": "goes-on"}));
    cramped.free();
    eventually("it is written again", SOON, || server.log().contains("is written again").then_some(()));
    ok("stop-vm", json!({"vm": "goes-on", "force": true}));
    ok("delete-vm", json!({"vm": "goes-on"}));
}

#[test]
fn a_guest_of_others_is_asked_for_its_memory_too() {
    let lab = Lab::with_settings(FAST);
    let vm = lab.create("theirs").start().ready();
    let domain = vm.created["domain"].as_str().unwrap().to_owned();
    // As virsh defines one: nobody has asked its balloon for figures.
    lab.node.virsh(&["dommemstat", &domain, "--period", "0", "--live"]);
    let period = || lab.node.virsh(&["dumpxml", &domain]).contains("<stats period='10'/>");
    assert!(!period());
    vm.ok("reboot-vm", json!({"force": true}));
    eventually("its balloon is asked", Duration::from_secs(120), || {
        // Which looks at its definition.
        vm.describe();
        period().then_some(())
    });
    eventually("it tells", SOON, || {
        values(&metrics(&vm, json!({})), "memory_used_mib", Some("balloon"))?.last()?.is_number().then_some(())
    });
}

#[test]
fn on_the_command_line() {
    let lab = Lab::with_settings(FAST);
    let vm = lab.create("shown").start();
    eventually("it is measured", SOON, || (known(&metrics(&vm, json!({})), "cpu_percent") > 1).then_some(()));
    let (code, text) = lab.server.cli(&["vm", "metrics", &vm.name, "--last", "15m", "--devices"]);
    assert!(code == 0 && text.contains("cpu") && text.contains("vda") && text.contains('▁'), "{text}");
    let (code, text, _) = lab.server.cli_apart(&["vm", "metrics", &vm.name, "-o", "json"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert!(code == 0 && answer["series"].as_array().unwrap().len() > 5, "{text}");
    let (code, text) = lab.server.cli(&["vm", "metrics", &vm.name, "--last", "soon"]);
    assert!(code == 2 && text.contains("like 90s or 7d"), "{text}");
    // Not on a terminal: once.
    let (code, text) = lab.server.cli(&["vm", "top", "--sort", "memory"]);
    assert!(code == 0 && text.contains(&vm.name) && text.contains("1 of 1 running VMs"), "{text}");
    assert!(text.contains(" ago") && text.contains(" %"), "{text}");
    let (_, text) = lab.server.cli(&["vm", "show", &vm.name]);
    assert!(text.contains("cpu ") && text.contains("memory "), "{text}");
    // The list has it for who asks.
    let row = |usage: bool| lab.ok("list-vms", json!({"usage": usage}))["vms"][0]["usage"].clone();
    assert!(row(false).is_null() && row(true)["cpu_percent"].is_number());
}

fn scraped(lab: &Lab, token: Option<&str>) -> (u16, String) {
    let request = http_client(Duration::from_secs(30)).get(format!("{}/metrics", lab.server.url));
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let response = request.send().unwrap();
    (response.status().as_u16(), response.text().unwrap())
}

/// The number of a line that has all of this.
fn line(text: &str, parts: &[&str]) -> Option<f64> {
    let line = text.lines().find(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn a_prometheus_reads_it() {
    let lab = Lab::with_settings(FAST);
    let viewer = token(&lab.server, "prometheus", "viewer");
    assert_eq!(scraped(&lab, None).0, 401);
    let (vm, gone) = (lab.create("stays").start(), lab.create("goes").start());
    let of = |vm: &TestVm<'_>| format!("vm=\"{}\"", vm.id);
    let text = eventually("both are measured", SOON, || {
        let (status, text) = scraped(&lab, Some(&viewer));
        assert_eq!(status, 200, "{text}");
        let cpu = |vm| line(&text, &["vmyard_vm_cpu_seconds_total", &of(vm)]);
        (cpu(&vm)? > 0.0 && cpu(&gone)? > 0.0 && text.contains("vmyard_pool_free_bytes")).then_some(text)
    });
    assert!(text.ends_with("# EOF\n"), "{text}");
    for (name, labels) in [
        ("vmyard_vm_state", "state=\"running\""),
        ("vmyard_vm_vcpus", ""),
        ("vmyard_vm_memory_bytes", ""),
        ("vmyard_vm_disk_read_bytes_total", "device=\"vda\""),
        ("vmyard_vm_net_sent_packets_total", "device=\"52:54:"),
    ] {
        assert!(line(&text, &[name, labels, &of(&vm)]).is_some(), "{name}: {text}");
    }
    assert_eq!(line(&text, &["vmyard_node_up", "node=\"local\""]), Some(1.0));
    assert!(
        line(&text, &["vmyard_request_duration_seconds_count", "method=\"create-vm\"", "outcome=\"ok\""]) >= Some(2.0)
    );
    assert_eq!(line(&text, &["vmyard_tasks", "state=\"running\""]), Some(0.0));
    assert!(line(&text, &["vmyard_sampler_age_seconds"]) < Some(30.0));
    // What is gone is gone at once.
    let series = of(&gone);
    gone.delete();
    let (_, text) = scraped(&lab, Some(&viewer));
    assert!(!text.contains(&series) && text.contains(&of(&vm)), "{text}");

    // All that the dashboard shows is there.
    let dashboard = include_str!("../../../docs/grafana-dashboard.json");
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let mut names = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let words = query.split(|c: char| !c.is_alphanumeric() && c != '_');
            for name in words.filter(|word| word.starts_with("vmyard_")) {
                let is_there = text.lines().any(|line| line.starts_with(name));
                // Only where the guest's balloon driver has told by now.
                assert!(is_there || name == "vmyard_vm_memory_used_bytes", "{name} of {}", panel["title"]);
                names += 1;
            }
        }
    }
    assert!(names > 10);
}

/// A process of the test's, ended with it.
struct Started(std::process::Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_prometheus_answers_instead() {
    // None of those that the system gives away.
    let address = format!("127.0.0.1:{}", 20_000 + std::process::id() % 10_000);
    let mut lab = Lab::with_settings(&format!("{FAST}url = \"http://{address}\"\n"));
    let vm = lab.create("asked-elsewhere").start();
    // It isn't there yet.
    let problem = vm.err("describe-vm-metrics", json!({}), 503, "node_unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("metrics.url"), "{problem}");

    let dir = lab.dir.path.join("prometheus");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("token"), token(&lab.server, "prometheus", "viewer")).unwrap();
    let config = json!({
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{
            "job_name": "vmyard",
            "authorization": {"credentials_file": dir.join("token")},
            "static_configs": [{"targets": [lab.server.url.trim_start_matches("http://")]}],
        }],
    });
    // JSON is YAML.
    fs::write(dir.join("config.yml"), config.to_string()).unwrap();
    let log = fs::File::create(dir.join("log")).unwrap();
    let started = Command::new(cached("prometheus", "unpacked").join("prometheus"))
        .arg(format!("--config.file={}", dir.join("config.yml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stderr(log)
        .spawn();
    let prometheus = Started(started.unwrap());
    let start = Time::now();
    // Two readings make a rate: at the end of a step that is over there may have been one.
    let end = || Time(Time::now().0 + 10_000);
    let answer = eventually("it has read some", Duration::from_secs(120), || {
        let asked = json!({"vm": vm.name, "start": start, "end": end(), "step_s": 5});
        let answer = lab.server.call("describe-vm-metrics", asked);
        (answer.status == 200 && known(&answer.body, "cpu_percent") > 1).then_some(answer.body)
    });
    for (name, part) in [
        ("cpu_percent", None),
        ("disk_read_iops", Some("vda")),
        ("disk_read_bytes_per_s", None),
        ("net_tx_packets_per_s", None),
    ] {
        let values = values(&answer, name, part).unwrap_or_else(|| panic!("no {name}: {answer}"));
        assert_eq!(values.len(), answer["times"].as_array().unwrap().len());
        assert!(values.iter().filter_map(Value::as_f64).all(|value| value >= 0.0), "{name}: {values:?}");
    }
    let most = metrics(&vm, json!({"start": start, "end": end(), "step_s": 30, "aggregate": "maximum"}));
    assert!(known(&most, "cpu_percent") > 0, "{most}");
    // One that is away is no fault of ours, and said so. There is no history beside it.
    drop(prometheus);
    vm.err("describe-vm-metrics", json!({}), 503, "node_unavailable");
    vm.delete();
    assert!(!lab.dir.path.join("data/metrics.db").exists());
    assert!(lab.server.terminate());
}

#[test]
fn a_clock_that_is_set_back_and_forth() {
    let mut lab = Lab::with_settings(FAST);
    let clock = Clock::new(&lab.dir.path);
    lab.server.kill_and_restart(&clock.env());
    let vm = lab.create("timeless").start();
    let measured_at = |offset_s: i64| {
        let start = Time(Time::now().0 + offset_s * 1000);
        eventually(&format!("it is measured at {offset_s} s"), SOON, || {
            let metrics = metrics(&vm, json!({"start": start, "end": Time(start.0 + 90_000), "step_s": 1}));
            (known(&metrics, "cpu_percent") > 3).then_some(())
        });
    };
    measured_at(0);
    for offset_h in [-3, 2, 0] {
        clock.set(&format!("{offset_h:+}h"));
        measured_at(offset_h * 3600);
    }
    // What was measured when the clock was wrong has its wrong time, and what lies between is a gap.
    let all = metrics(&vm, json!({"start": Time(Time::now().0 - 4 * 3_600_000), "step_s": 3600}));
    let values = values(&all, "cpu_percent", None).unwrap();
    assert!((2..=4).contains(&values.iter().filter(|value| value.is_number()).count()), "{values:?}");
    assert!(!lab.server.log().contains("can't be written"), "{}", lab.server.log());
}
