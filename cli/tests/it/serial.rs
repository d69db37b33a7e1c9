//! Serial lines of VMs: what was said before, many who watch and one who types, and what befalls a session.

use crate::access::{called_with, token};
use crate::lab::{Lab, SOON, Socket, TestVm, eventually, http_client, shown::Shown};
use serde_json::{Value, json};
use std::{io::Write, process::Stdio, time::Duration};

const PROTOCOL: (&str, &str) = ("sec-websocket-protocol", "vmyard.serial.v1");

/// A session on a VM's line; with notes.
fn attend(vm: &TestVm<'_>, options: Value) -> Socket {
    attend_as(vm, &vm.lab.server.token, options)
}

fn attend_as(vm: &TestVm<'_>, token: &str, options: Value) -> Socket {
    let mut request = json!({"vm": vm.name});
    request.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let answer = called_with(&vm.lab.server, token, "get-serial-console", request);
    assert_eq!(answer.status, 200, "{answer:?}");
    Socket::open_with(answer.body["websocket_url"].as_str().unwrap(), &[PROTOCOL]).unwrap()
}

fn operator(lab: &Lab, name: &str) -> String {
    token(&lab.server, &lab.name(name), "operator")
}

/// A VM whose user can log in by password.
fn with_user<'a>(lab: &'a Lab, name: &str) -> TestVm<'a> {
    lab.create_with(name, json!({"cloud_init": {"user": "alice", "password": "wonderland"}})).start().ready()
}

/// Logs in on the line.
fn log_in(console: &mut Socket) {
    console.send(b"\r");
    console.expect("login: ");
    console.send(b"alice\r");
    console.expect("assword:");
    console.send(b"wonderland\r");
    console.expect("$ ");
}

/// Waits for a note of this kind, and takes all up to it out.
fn noted(console: &mut Socket, kind: &str) -> Value {
    console.until(&format!("a note {kind}"), SOON, |socket| {
        let notes: Vec<Value> = socket.notes.iter().map(|note| serde_json::from_str(note).unwrap()).collect();
        let at = notes.iter().position(|note| note["type"] == kind)?;
        socket.notes.drain(..=at);
        Some(notes[at].clone())
    })
}

fn typed_and_watched(lab: &Lab) {
    let vm = with_user(lab, "line");
    let mut alice = attend(&vm, json!({}));
    // What was said before anybody watched comes first, once.
    alice.expect("tiny: ready");
    assert_eq!(noted(&mut alice, "writer")["you"], true);
    log_in(&mut alice);
    alice.send(b"echo one-$((40+2))\r");
    alice.expect("one-42");

    // A second one sees all of it, and may not type.
    let bob = operator(lab, "bob");
    let mut second = attend_as(&vm, &bob, json!({}));
    second.expect("tiny: ready");
    second.expect("one-42");
    let writer = noted(&mut second, "writer");
    assert_eq!((&writer["you"], &writer["who"]), (&json!(false), &json!("admin")));
    second.send(b"echo second\r");
    assert!(noted(&mut second, "refused")["why"].as_str().unwrap().contains("admin is typing"));
    // Until he takes over.
    second.note(r#"{"type": "take-over"}"#);
    assert_eq!(noted(&mut second, "writer")["you"], true);
    assert!(noted(&mut alice, "writer")["who"].as_str().unwrap().starts_with("bob"));
    second.send(b"echo two-$((40+2))\r");
    second.expect("two-42");
    alice.expect("two-42");
    alice.send(b"x");
    assert!(noted(&mut alice, "refused")["why"].as_str().unwrap().starts_with("bob"));
    // When he leaves, who types next is the one.
    drop(second);
    assert_eq!(noted(&mut alice, "writer")["who"], Value::Null);
    alice.send(b"echo three-$((40+2))\r");
    alice.expect("three-42");
    // One who only watches never does.
    let mut quiet = attend_as(&vm, &bob, json!({"read_only": true}));
    quiet.expect("three-42");
    quiet.send(b"x");
    assert!(noted(&mut quiet, "refused")["why"].as_str().unwrap().contains("only watches"));
    // Nonsense is answered, and harms nobody.
    quiet.note("take over!");
    noted(&mut quiet, "refused");

    // It lasts through a reboot of the guest.
    vm.ok("reboot-vm", json!({"timeout_s": 20}));
    // In turns: who doesn't read for a minute is let go.
    for text in ["tiny: ready", "login: "] {
        alice.expect(text);
        quiet.expect(text);
    }
    log_in(&mut alice);
    // The log has it, too.
    let log = vm.ok("get-serial-log", json!({}));
    for text in ["one-42", "two-42", "three-42"] {
        assert!(log["text"].as_str().unwrap().contains(text), "{log}");
    }
    let end = vm.ok("get-serial-log", json!({"max_bytes": 5}));
    assert_eq!((&end["bytes"], end["text"].as_str().unwrap().len()), (&json!(5), 5));
    vm.err("get-serial-log", json!({"max_bytes": 0}), 400, "invalid");

    // A client without notes has nothing but bytes.
    let plain = vm.ok("get-serial-console", json!({"take_over": true}));
    let mut plain = Socket::open(plain["websocket_url"].as_str().unwrap()).unwrap();
    plain.expect("three-42");
    plain.note("echo four-$((40+2))\r");
    plain.expect("four-42");
    assert!(plain.notes.is_empty());

    // The power goes.
    vm.ok("stop-vm", json!({"force": true}));
    assert_eq!(alice.end(SOON), "the VM is off");
    assert_eq!(plain.end(SOON), "the VM is off");
}

#[test]
fn typed_and_watched_here() {
    typed_and_watched(&Lab::own());
}

#[test]
fn typed_and_watched_on_another_machine() {
    typed_and_watched(&Lab::remote());
}

#[test]
fn of_a_vm_that_is_off() {
    let lab = Lab::own();
    let vm = lab.create("asleep");
    vm.err("get-serial-console", json!({}), 409, "wrong_state");
    vm.err("get-serial-console", json!({"read_only": true, "take_over": true}), 400, "invalid");
    lab.err("get-serial-console", json!({"vm": "nobody"}), 404, "not_found");
    assert_eq!(vm.ok("get-serial-log", json!({}))["text"], "");
    // It waits for the start, and stays when the VM goes off.
    let mut console = attend(&vm, json!({"wait_for_start": true}));
    assert_eq!(noted(&mut console, "power")["on"], false);
    console.send(b"x");
    assert!(noted(&mut console, "refused")["why"].as_str().unwrap().contains("not open"));
    for n in 1..=2 {
        vm.ok("start-vm", json!({}));
        assert_eq!(noted(&mut console, "power")["on"], true);
        console.until("it is ready", Duration::from_secs(100), |socket| {
            (String::from_utf8_lossy(&socket.bytes).matches("tiny: ready").count() == n).then_some(())
        });
        vm.ok("stop-vm", json!({"force": true}));
        assert_eq!(noted(&mut console, "power")["on"], false);
        // All that it has said, and nothing twice.
        assert_eq!(String::from_utf8_lossy(&console.bytes), vm.serial_log());
    }
    // A ticket whose VM goes off in between.
    vm.ok("start-vm", json!({}));
    let ticket = vm.ok("get-serial-console", json!({}));
    lab.node.virsh(&["destroy", vm.created["domain"].as_str().unwrap()]);
    drop(console);
    match Socket::open(ticket["websocket_url"].as_str().unwrap()) {
        Err((status, body)) => assert!(status == 409 && body.contains("wrong_state"), "{status} {body}"),
        // It came in before the power's end was noticed.
        Ok(mut session) => assert_eq!(session.end(SOON), "the VM is off"),
    }
}

/// Nothing is lost and nothing comes twice, though the line is opened in the middle of what the guest says, and libvirtd is
/// restarted in the middle of it.
#[test]
fn every_line_comes_once() {
    let lab = Lab::own();
    let vm = with_user(&lab, "count");
    vm.run("(i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo \"line $i of many\"; usleep 10000; done) >/dev/ttyS0 2>&1 </dev/null &");
    let mut consoles = Vec::new();
    for n in 0..3 {
        // At different moments of QEMU's second between two looks.
        eventually("it goes on", SOON, || {
            vm.serial_log().contains(&format!("line {} of many", 20 + 37 * n)).then_some(())
        });
        consoles.push(attend(&vm, json!({"read_only": true})));
        if n == 0 {
            // Alone: its line is closed when it leaves, and the next one opens it anew.
            consoles[0].expect("line 40 of many");
            consoles.clear();
        }
    }
    lab.node.command("kill-libvirtd");
    lab.node.command("start-libvirtd");
    // Side by side: one that doesn't read is let go after a while.
    let read_all = |mut console: Socket| {
        console.until("the last line", 9 * SOON, |socket| {
            String::from_utf8_lossy(&socket.bytes).contains("line 2000 of many").then_some(())
        });
        console
    };
    let consoles: Vec<Socket> = std::thread::scope(|scope| {
        let reading: Vec<_> = consoles.drain(..).map(|console| scope.spawn(move || read_all(console))).collect();
        reading.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    for console in consoles {
        let said = String::from_utf8_lossy(&console.bytes).into_owned();
        let numbers: Vec<u32> =
            said.split("line ").skip(1).filter_map(|line| line.split_once(" of many")?.0.parse().ok()).collect();
        let wrong = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
        assert_eq!((wrong, numbers.last()), (None, Some(&2000)));
    }
}

#[test]
fn it_survives_the_server_and_libvirtd() {
    let mut lab = Lab::own();
    let vm = with_user(&lab, "stay");
    let mut console = attend(&vm, json!({}));
    log_in(&mut console);
    console.send(b"echo before-$((40+2))\r");
    console.expect("before-42");
    // libvirtd goes and comes: the session stays.
    lab.node.command("kill-libvirtd");
    lab.node.command("start-libvirtd");
    console.until("it takes keys again", SOON, |socket| {
        socket.send(b"echo middle-$((40+2))\r");
        socket.receive(Duration::from_secs(1));
        String::from_utf8_lossy(&socket.bytes).contains("middle-42").then_some(())
    });
    // The server goes and comes: what was said is there.
    let name = vm.name.clone();
    std::mem::forget(vm);
    lab.server.kill_and_restart(&[]);
    assert!(!console.end(SOON).is_empty());
    let vm = TestVm::new(&lab, lab.ok("describe-vm", json!({"vm": name})));
    let mut console = attend(&vm, json!({}));
    for text in ["tiny: ready", "before-42", "middle-42"] {
        console.expect(text);
    }
    console.send(b"echo after-$((40+2))\r");
    console.expect("after-42");
    // A server that is told to stop says so.
    std::mem::forget(vm);
    assert!(lab.server.terminate());
    assert_eq!(console.end(SOON), "the server stops");
}

#[test]
fn the_command_line_goes_on_when_the_server_is_back() {
    let mut lab = Lab::own();
    let vm = with_user(&lab, "again");
    vm.run("for n in 1 2 3; do echo was-$((n+40)); done >/dev/ttyS0");
    let mut watcher = lab.server.command(crate::lab::server::VMYARD);
    let mut watcher = watcher
        .args(["vm", "console", &vm.name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let shown = Shown::of(&mut watcher);
    let mut keys = watcher.stdin.take().unwrap();
    for (key, then) in
        [("\r", "login: "), ("alice\r", "assword:"), ("wonderland\r", "$ "), ("echo a-$((1+1))\r", "a-2")]
    {
        keys.write_all(key.as_bytes()).unwrap();
        shown.wait_for(then);
    }
    let name = vm.name.clone();
    std::mem::forget(vm);
    // Killed, and told to stop.
    for (round, stopped) in [false, true].into_iter().enumerate() {
        if stopped {
            assert!(lab.server.terminate());
        }
        lab.server.kill_and_restart_there();
        let mark = format!("b-{}", round + 10);
        eventually("it takes keys again", SOON, || {
            keys.write_all(format!("echo b-$(({round}+10))\r").as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(300));
            shown.text().contains(&mark).then_some(())
        });
    }
    let all = shown.text();
    for once in ["tiny: ready", "was-41", "was-43", "a-2"] {
        assert_eq!(all.matches(once).count(), 1, "{once}: {all}");
    }
    // A VM that is never quiet, too.
    keys.write_all(b"n=0; while :; do n=$((n+1)); echo c-$n-c; usleep 100000; done\r").unwrap();
    shown.wait_for("c-20-c");
    lab.server.kill_and_restart_there();
    let line = shown.text().matches("-c\r").count();
    shown.wait_for(&format!("c-{}-c", line + 100));
    assert_eq!(shown.text().matches("c-20-c").count(), 1);
    lab.ok("stop-vm", json!({"vm": name, "force": true}));
    let output = watcher.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("the VM is off"), "{said}");
    assert_eq!(said.matches("; trying again]").count(), 3, "{said}");
    assert!(said.contains("[the server stops; trying again]"), "{said}");
    lab.ok("delete-vm", json!({"vm": name}));
}

#[test]
fn fifty_watch_and_one_does_not_read() {
    let lab = Lab::own();
    let vm = with_user(&lab, "crowd");
    let mut writer = attend(&vm, json!({}));
    log_in(&mut writer);
    let deaf = attend(&vm, json!({"read_only": true}));
    let mut crowd: Vec<Socket> = (0..50).map(|_| attend(&vm, json!({"read_only": true}))).collect();
    let before = lab.server.memory_mib();
    // 6 MiB: more than a connection and the ring hold together.
    writer.send(b"stty -echo; i=0; while [ $i -lt 96 ]; do i=$((i+1)); head -c 65536 /dev/zero | tr '\\0' 'x'; done; echo all-$((40+2))\r");
    let mut done = [false; 50];
    eventually("all have read it", 9 * SOON, || {
        writer.receive(Duration::from_millis(1));
        writer.bytes.clear();
        for (console, done) in crowd.iter_mut().zip(&mut done) {
            while !*done && console.receive(Duration::from_millis(1)) {
                *done |= console.bytes.ends_with(b"all-42\r\n")
                    || String::from_utf8_lossy(&console.bytes).contains("all-42");
                if console.bytes.len() > 64 {
                    console.bytes.drain(..console.bytes.len() - 64);
                }
            }
            assert_eq!(console.closed, None);
        }
        done.iter().all(|done| *done).then_some(())
    });
    let grown = lab.server.memory_mib().saturating_sub(before);
    assert!(grown < 40, "{grown} MiB more");
    // Who doesn't read is let go, and the log says why.
    // On a busy machine it may have been silent for too long before it was given too much.
    let whys = ["the client has received nothing", "the client gives no sign of life"];
    eventually("it is let go", SOON, || {
        let log = lab.server.log();
        whys.iter().any(|why| log.contains(why)).then_some(())
    });
    drop(deaf);
}

#[test]
fn others_have_the_line() {
    let lab = Lab::own();
    let vm = lab.create("theirs").start().ready();
    // What `virsh console` does.
    let connection = libvirt::Connect::open(lab.node.uri()).unwrap();
    let domain = connection.domain_by_name(vm.created["domain"].as_str().unwrap()).unwrap();
    let open = || {
        let stream = libvirt::Stream::new(&connection, 0).unwrap();
        domain.open_console(None, &stream, 0).map(|()| stream)
    };
    // While nobody watches, others can have it; who asks then is told, and may insist.
    let theirs = open().unwrap();
    let url = vm.ok("get-serial-console", json!({}))["websocket_url"].as_str().unwrap().to_owned();
    let (status, body) = Socket::open(&url).err().unwrap();
    assert!(status == 409 && body.contains("force"), "{status} {body}");
    let mut console = attend(&vm, json!({"force": true}));
    console.expect("tiny: ready");
    console.send(b"\r");
    console.expect("login: ");
    assert!(open().is_err());
    // One who leaves and comes back at once is not in their own way.
    for _ in 0..10 {
        drop(console);
        console = attend(&vm, json!({}));
    }
    // When the last one leaves the line is free again.
    drop((console, theirs));
    eventually("others get it", SOON, || open().ok());
}

#[test]
fn recordings() {
    let lab = Lab::own();
    let vm = with_user(&lab, "film");
    let asked = vm.ok("get-serial-console", json!({"record": true}));
    let id = asked["recording"].as_str().unwrap().to_owned();
    assert_eq!(lab.ok("list-recordings", json!({}))["total"], 0);
    let mut console = Socket::open(asked["websocket_url"].as_str().unwrap()).unwrap();
    log_in(&mut console);
    console.send("echo caf\u{e9}-$((40+2))\r".as_bytes());
    console.expect("-42");
    console.expect("$ ");
    drop(console);

    let list = lab.ok("list-recordings", json!({"vm": vm.name}));
    let one = &list["recordings"][0];
    assert_eq!(
        (&list["total"], &one["id"], &one["vm"], &one["caller"]),
        (&json!(1), &json!(id), &json!(vm.id), &json!("admin"))
    );
    assert_eq!(lab.ok("list-recordings", json!({"vm": "another"}))["total"], 0);
    let path = format!("/api/recordings/{id}");
    let get = |token: &str| {
        let response = http_client(Duration::from_secs(30))
            .get(format!("{}{path}", lab.server.url))
            .bearer_auth(token)
            .send()
            .unwrap();
        (response.status().as_u16(), response.text().unwrap())
    };
    let (status, text) = get(&lab.server.token);
    assert_eq!(status, 200);
    let mut lines = text.lines();
    let header: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!((&header["version"], &header["width"]), (&json!(2), &json!(80)));
    let (mut said, mut last) = (String::new(), 0.0);
    for line in lines {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event[1] == "o" && event[0].as_f64().unwrap() >= last, "{event}");
        last = event[0].as_f64().unwrap();
        said.push_str(event[2].as_str().unwrap());
    }
    assert!(said.contains("caf\u{e9}-42") && !said.contains("wonderland"), "{said}");

    // For administrators alone.
    let operator = operator(&lab, "op");
    assert_eq!(get(&operator).0, 403);
    assert_eq!(lab.server.get(&path).status, 401);
    assert_eq!(called_with(&lab.server, &operator, "list-recordings", json!({})).status, 403);
    lab.err("delete-recording", json!({"recording": vm.id}), 404, "not_found");
    assert_eq!(lab.ok("delete-recording", json!({"recording": id})), json!({"id": id}));
    assert_eq!(lab.ok("list-recordings", json!({}))["total"], 0);
    assert_eq!(get(&lab.server.token).0, 404);
}

/// The command line on a terminal of its own.
#[test]
fn by_the_command_line() {
    let lab = Lab::own();
    let vm = with_user(&lab, "term");
    let cast = lab.dir.path.join("session.cast").display().to_string();
    let line =
        format!("exec '{}' vm console {} --record '{cast}' --record-on-server", crate::lab::server::VMYARD, vm.name);
    let mut terminal = lab
        .server
        .command("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keys = terminal.stdin.take().unwrap();
    let shown = Shown::of(&mut terminal);
    let shows = |what: &str| shown.wait_for(what);
    shows("Ctrl-] leaves");
    shows("tiny: ready");
    for (key, then) in [
        ("\r", "login: "),
        ("alice\r", "assword:"),
        ("wonderland\r", "$ "),
        ("echo begun-$((40+2)); sleep 300\r", "begun-42"),
    ] {
        keys.write_all(key.as_bytes()).unwrap();
        shows(then);
    }
    // Ctrl-C is the guest's; the shell has heard the line by now, not only echoed it.
    keys.write_all(b"\x03").unwrap();
    eventually("the prompt is back", SOON, || shown.text().split_once("begun-42")?.1.contains("$ ").then_some(()));
    keys.write_all(b"echo still-$((40+2))\r").unwrap();
    shows("still-42");
    // Another one watches, and is told who types.
    let (code, out) = {
        let mut watcher = lab.server.command(crate::lab::server::VMYARD);
        let output = watcher
            .args(["vm", "console", &vm.name, "--read-only"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        eventually("it watches", SOON, || (lab.server.log().matches("status=101").count() == 2).then_some(()));
        keys.write_all(b"\x1d").unwrap();
        assert!(terminal.wait().unwrap().success());
        vm.ok("stop-vm", json!({"force": true}));
        let output = output.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    assert!(code == Some(0) && out.contains("still-42") && out.contains("the VM is off"), "{code:?} {out}");
    assert!(shown.all().contains("goodbye"));
    let recorded = std::fs::read_to_string(&cast).unwrap();
    assert!(recorded.starts_with("{") && recorded.contains("still-42"));

    let (code, text) = lab.server.cli(&["vm", "console", &vm.name]);
    assert!(code == 1 && text.contains("wrong_state") && text.contains("wait_for_start"), "{text}");
    let (code, text) = lab.server.cli(&["vm", "console", &vm.name, "--record", &cast]);
    assert!(code != 0, "{text}");
    assert!(lab.server.cli(&["vm", "serial-log", &vm.name]).1.contains("still-42"));
    assert_eq!(lab.server.cli(&["vm", "serial-log", &vm.name, "--max-bytes", "0"]).0, 2);

    let id = lab.ok("list-recordings", json!({}))["recordings"][0]["id"].as_str().unwrap().to_owned();
    let (code, text) = lab.server.cli(&["recording", "list", "--vm", &vm.name]);
    assert!(code == 0 && text.contains(&id) && text.contains("admin"), "{text}");
    let out = lab.dir.path.join("got.cast").display().to_string();
    assert_eq!(lab.server.cli(&["recording", "get", &id, "--out", &out]).0, 0);
    assert!(std::fs::read_to_string(&out).unwrap().contains("still-42"));
    assert_eq!(lab.server.cli(&["recording", "delete", &id]), (0, format!("recording {id} is deleted\n")));
    let (code, text) = lab.server.cli(&["recording", "get", &id, "--out", "/nowhere"]);
    assert!(code == 1 && text.contains("not_found"), "{text}");

    // And the screen.
    vm.ok("start-vm", json!({}));
    let (code, text) = lab.server.cli(&["vm", "vnc", &vm.name]);
    assert!(code == 0 && text.contains("address: 127.0.0.1::") && text.contains("password: "), "{text}");
    let png = lab.dir.path.join("screen.png").display().to_string();
    let (code, text) = lab.server.cli(&["vm", "screenshot", &vm.name, "--out", &png]);
    assert!(code == 0 && text.contains(" x "), "{text}");
    assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"));
}
