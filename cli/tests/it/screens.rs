//! Screens of VMs: get-vnc-console with a VNC client and by WebSocket, who is let in, and pictures.

use crate::access::{called_with, token};
use crate::lab::{
    Lab, SOON, Socket, TestVm,
    browser::{Browser, serve_files},
    cached, eventually,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

/// The file in which VNC clients keep a password: DES by a key that all of them know.
fn password_file(lab: &Lab, password: &str) -> String {
    let path = lab.dir.path.join("vnc-password").display().to_string();
    let key = "e84ad660c4721ae0";
    let providers = ["-provider", "legacy", "-provider", "default"];
    let mut child = Command::new("openssl")
        .args(["enc", "-des-ecb", "-nopad", "-K", key, "-out", &path])
        .args(providers)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    path
}

/// A picture as a VNC client of another make takes it; what it says when it gets none.
fn snapshot(lab: &Lab, console: &Value, password: &str) -> Result<Vec<u8>, String> {
    let out = lab.dir.path.join("screen.jpg");
    let _ = fs::remove_file(&out);
    // It counts ports from 5900 on.
    let display = format!("{}:{}", console["host"].as_str().unwrap(), console["port"].as_u64().unwrap() - 5900);
    let said = Command::new("vncsnapshot")
        .args(["-quiet", "-passwd", &password_file(lab, password), &display])
        .arg(&out)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    fs::read(&out).map_err(|_| String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned())
}

/// Whether somebody listens there.
fn is_open(console: &Value) -> bool {
    TcpStream::connect((console["host"].as_str().unwrap(), u16::try_from(console["port"].as_u64().unwrap()).unwrap()))
        .is_ok()
}

/// Comes in by WebSocket as noVNC does; returns the connection after ServerInit, and the desktop's name and size.
fn browse(console: &Value) -> (Socket, (String, u16, u16)) {
    let mut socket = Socket::open(console["websocket_url"].as_str().unwrap()).unwrap();
    assert_eq!(socket.greet_rfb(), [0; 4]);
    // Not shared: it must throw nobody out all the same.
    socket.send(&[0]);
    let init = socket.take(24);
    let length = u32::from_be_bytes(init[20..24].try_into().unwrap()) as usize;
    let name = String::from_utf8(socket.take(length)).unwrap();
    (socket, (name, u16::from_be_bytes([init[0], init[1]]), u16::from_be_bytes([init[2], init[3]])))
}

/// Asks for the whole screen, and takes the update that comes.
fn update(socket: &mut Socket, (width, height): (u16, u16)) {
    let [w, v] = width.to_be_bytes();
    let [h, i] = height.to_be_bytes();
    socket.send(&[3, 0, 0, 0, 0, 0, w, v, h, i]);
    // RFC 6143, 7.6.1: the kind, one byte that says nothing, the number of rectangles; each has a place, a size and an encoding.
    let head = socket.take(4);
    assert_eq!(head[0], 0, "an update");
    for _ in 0..u16::from_be_bytes([head[2], head[3]]) {
        let rectangle = socket.take(12);
        let side = |at: usize| usize::from(u16::from_be_bytes([rectangle[at], rectangle[at + 1]]));
        // No other encoding than raw was asked for.
        socket.take(side(4) * side(6) * 4);
    }
}

/// What must be so wherever the VM runs.
fn two_callers(vm: &TestVm<'_>) {
    let lab = vm.lab;
    let one = vm.ok("get-vnc-console", json!({}));
    let other = vm.ok("get-vnc-console", json!({}));
    assert_eq!(one["password"].as_str().unwrap().len(), 8);
    assert!(one["port"] != other["port"] && one["password"] != other["password"]);
    let (mut browser, (_, width, height)) = browse(&one);
    assert!(width >= 640 && height >= 400, "{width} x {height}");
    update(&mut browser, (width, height));

    // A wrong password is refused, the right one still works, and the port closes when its client leaves.
    let wrong = snapshot(lab, &other, "wrongwro").unwrap_err();
    assert!(wrong.to_lowercase().contains("auth"), "{wrong}");
    assert!(snapshot(lab, &other, one["password"].as_str().unwrap()).is_err());
    let picture = snapshot(lab, &other, other["password"].as_str().unwrap()).unwrap();
    assert!(picture.starts_with(&[0xff, 0xd8, 0xff]) && picture.len() > 2000, "{} bytes", picture.len());
    eventually("the port closes", SOON, || (!is_open(&other)).then_some(()));

    // Who watched goes on watching; a second one beside them.
    let (mut second, _) = browse(&vm.ok("get-vnc-console", json!({})));
    update(&mut second, (width, height));
    update(&mut browser, (width, height));

    let shot = vm.ok("get-vm-screenshot", json!({}));
    let png = BASE64_STANDARD.decode(shot["png_base64"].as_str().unwrap()).unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
    assert_eq!((&shot["width"], &shot["height"]), (&json!(width), &json!(height)));

    // The power goes: so do the sessions.
    vm.ok("stop-vm", json!({"force": true}));
    for socket in [&mut browser, &mut second] {
        assert!(!socket.end(Duration::from_secs(20)).is_empty());
    }
}

#[test]
fn two_callers_of_a_local_vm() {
    let lab = Lab::own();
    let vm = lab.create("screen").start().ready();
    two_callers(&vm);
    // Neither tickets nor passwords are anywhere.
    let one = vm.ok("start-vm", json!({}));
    assert_eq!(one["state"], "running");
    let console = vm.ok("get-vnc-console", json!({}));
    let (_, ticket) = console["websocket_url"].as_str().unwrap().split_once("ticket=").unwrap();
    lab.nowhere(&[ticket, console["password"].as_str().unwrap()]);
    let audit = lab.ok("list-audit", json!({"method": "get-vnc-console"}));
    assert_eq!(
        (&audit["audit"][0]["outcome"], &audit["audit"][0]["target"]["name"]),
        (&json!("accepted"), &json!(vm.name))
    );
}

#[test]
fn two_callers_of_a_vm_on_another_machine() {
    let lab = Lab::remote();
    let vm = lab.create("far").start().ready();
    two_callers(&vm);
}

#[test]
fn who_is_let_in() {
    let lab = Lab::own();
    let (vm, other) = (lab.create("door").start(), lab.create("else").start());
    let url = |console: &Value| console["websocket_url"].as_str().unwrap().to_owned();
    let refused = |url: &str, headers: &[(&'static str, &str)], status: u16, code: &str| {
        // The id under which it is in the log.
        let id = ("x-request-id", "6f1f3c1e-8a0b-4a7e-9d55-000000000001");
        let (is, body) = Socket::open_with(url, &[headers, &[id]].concat()).err().unwrap();
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["request_id"], id.1);
        assert_eq!((is, problem["code"].as_str()), (status, Some(code)), "{url}: {body}");
        problem["detail"].as_str().unwrap().to_owned()
    };
    // Once.
    let console = vm.ok("get-vnc-console", json!({}));
    drop(browse(&console));
    assert!(refused(&url(&console), &[], 401, "unauthenticated").contains("60 seconds"));
    // For its VM; and a ticket that was shown at the wrong door is worth nothing.
    let console = vm.ok("get-vnc-console", json!({}));
    let elsewhere = url(&console).replace(&vm.id, &other.id);
    assert!(refused(&elsewhere, &[], 401, "unauthenticated").contains("another VM"));
    refused(&url(&console), &[], 401, "unauthenticated");
    // For its kind of console.
    let console = vm.ok("get-vnc-console", json!({}));
    refused(&url(&console).replace("vnc-console", "serial-console"), &[], 401, "unauthenticated");
    // From a page of this server, or from no page.
    let console = vm.ok("get-vnc-console", json!({}));
    refused(&url(&console), &[("origin", "http://evil.example")], 403, "forbidden");
    let ours = lab.server.url.clone();
    assert!(Socket::open_with(&url(&console), &[("origin", &ours)]).is_ok());
    // For who asked for it.
    let (alice, bob) = (token(&lab.server, "alice", "operator"), token(&lab.server, "bob", "operator"));
    let ask = |token: &str| {
        let answer = called_with(&lab.server, token, "get-vnc-console", json!({"vm": vm.name}));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    };
    let console = ask(&alice);
    refused(&url(&console), &[("authorization", &format!("Bearer {bob}"))], 401, "unauthenticated");
    let console = ask(&alice);
    assert!(Socket::open_with(&url(&console), &[("authorization", &format!("Bearer {alice}"))]).is_ok());
    // Not for who may not, nor for who may no longer, however far they are.
    let viewer = token(&lab.server, "eve", "viewer");
    assert_eq!(called_with(&lab.server, &viewer, "get-vnc-console", json!({"vm": vm.name})).status, 403);
    assert_eq!(lab.ok("list-audit", json!({"caller": "eve"}))["audit"][0]["outcome"], "forbidden");
    let (waiting, (mut open, _)) = (ask(&alice), browse(&ask(&alice)));
    lab.ok("delete-token", json!({"token": "alice"}));
    refused(&url(&waiting), &[], 401, "unauthenticated");
    assert!(open.end(Duration::from_secs(30)).contains("token was deleted"));
    // Not without a ticket, nor without a WebSocket.
    let path = format!("/api/vnc-console/{}", vm.id);
    let bare = format!("{}{path}", lab.server.url.replace("http", "ws"));
    refused(&bare, &[], 401, "unauthenticated");
    refused(&format!("{bare}?ticket=%ff&ticket=x"), &[], 401, "unauthenticated");
    refused(&bare.replace(&vm.id, "no-id"), &[], 404, "not_found");
    let answer = lab.server.get(&path);
    assert_eq!((answer.status, answer.body["code"].as_str()), (400, Some("invalid")), "{answer:?}");
    assert_eq!(lab.server.post(&format!("vnc-console/{}", vm.id), None, "application/json", "{}").status, 405);

    // A port that nobody uses closes, and its ticket with it.
    let console = vm.ok("get-vnc-console", json!({}));
    // Whoever connects and says nothing keeps nobody out.
    let silent: Vec<TcpStream> = (0..3)
        .map(|_| {
            TcpStream::connect((
                console["host"].as_str().unwrap(),
                u16::try_from(console["port"].as_u64().unwrap()).unwrap(),
            ))
            .unwrap()
        })
        .collect();
    assert!(is_open(&console));
    eventually("the port closes", Duration::from_secs(90), || {
        std::thread::sleep(Duration::from_millis(500));
        (!is_open(&console)).then_some(())
    });
    drop(silent);
    eventually("the ticket's time is over", SOON, || {
        let now = vm.ok("get-vm-screenshot", json!({}))["taken_at"].as_str().unwrap().to_owned();
        (now.as_str() > console["expires_at"].as_str().unwrap()).then_some(())
    });
    refused(&url(&console), &[], 401, "unauthenticated");
}

/// noVNC, in a page of this server's origin.
#[test]
fn a_browser_shows_the_screen_and_types() {
    let lab = Lab::own();
    let user = json!({"cloud_init": {"user": "alice", "password": "wonderland"}});
    let vm = lab.create_with("novnc", user).start().ready();
    let files = serve_files(cached("novnc", "unpacked"));
    let browser = Browser::start();
    browser.go(&format!("{}/healthz", lab.server.url));
    let console = vm.ok("get-vnc-console", json!({}));
    let connect = "
        document.body.innerHTML = '<div id=screen style=\"width: 800px; height: 500px\"></div>';
        window.state = 'connecting';
        import(arguments[0] + '/core/rfb.js').then(module => {
            const rfb = window.rfb = new module.default(document.getElementById('screen'), arguments[1]);
            rfb.addEventListener('connect', () => { window.state = 'connected'; rfb.focus(); });
            rfb.addEventListener('disconnect', event => { window.state = 'disconnected ' + event.detail.clean; });
            rfb.addEventListener('credentialsrequired', () => { window.state = 'a password is asked for'; });
        }, error => { window.state = String(error); });";
    browser.run(connect, json!([files, console["websocket_url"]]));
    let state = || browser.run("return window.state", json!([])).as_str().unwrap().to_owned();
    eventually("it is connected", SOON, || {
        let state = state();
        assert!(["connecting", "connected"].contains(&state.as_str()), "{state}");
        (state == "connected").then_some(())
    });
    // The screen: as large as the guest's, and the login prompt is on it.
    let lit = "
        const canvas = document.querySelector('#screen canvas');
        const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        let lit = 0;
        for (let at = 0; at < pixels.length; at += 4) if (pixels[at] + pixels[at + 1] + pixels[at + 2] > 200) lit++;
        return [canvas.width, canvas.height, lit];";
    let shot = vm.ok("get-vm-screenshot", json!({}));
    let seen = eventually("something is on the screen", SOON, || {
        Some(browser.run(lit, json!([]))).filter(|seen| seen[2].as_u64().unwrap() > 200)
    });
    assert_eq!((&seen[0], &seen[1]), (&shot["width"], &shot["height"]));
    // Typed by the browser's keyboard, seen by the guest.
    browser.press("alice\n");
    // The prompt for the password takes a moment: more is lit then.
    eventually("a password is asked for", SOON, || {
        let now = browser.run(lit, json!([]))[2].as_u64();
        (now > seen[2].as_u64().map(|before| before + 300)).then_some(())
    });
    let wait_in_guest = |what: &str| {
        vm.run(&format!("for i in $(seq 300); do if {what}; then exit 0; fi; usleep 200000; done; ps; exit 1"));
    };
    browser.press("wonderland\n");
    wait_in_guest("ps | grep -v grep | grep -q -- '-sh'");
    browser.press("touch /tmp/typed\n");
    wait_in_guest("ls /tmp/typed");
    vm.ok("stop-vm", json!({"force": true}));
    eventually("it is told of the end", SOON, || (state() == "disconnected true").then_some(()));
}

#[test]
fn without_a_screen() {
    let lab = Lab::own();
    let vm = lab.create("blind");
    for method in ["get-vnc-console", "get-vm-screenshot"] {
        vm.err(method, json!({}), 409, "wrong_state");
        lab.err(method, json!({"vm": "nobody"}), 404, "not_found");
        lab.err(method, json!({"vm": vm.name, "size": 1}), 400, "invalid");
    }
    // One of somebody else's, without a display.
    let xml = "<domain type='qemu'><name>headless</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
        <os><type arch='x86_64' machine='q35'>hvm</type></os><devices/></domain>";
    let path = lab.dir.path.join("headless.xml");
    fs::write(&path, xml).unwrap();
    lab.node.virsh(&["create", &path.display().to_string()]);
    eventually("it is seen", SOON, || {
        (lab.server.call("describe-vm", json!({"vm": "headless"})).status == 200).then_some(())
    });
    let problem = lab.err("get-vnc-console", json!({"vm": "headless"}), 422, "unsupported");
    assert!(problem["detail"].as_str().unwrap().contains("no VNC display"), "{problem}");
    // Nor has it a serial line.
    let console = lab.ok("get-serial-console", json!({"vm": "headless"}));
    let (status, body) = Socket::open(console["websocket_url"].as_str().unwrap()).err().unwrap();
    assert!(status == 422 && body.contains("unsupported"), "{status} {body}");
    // QEMU is killed while somebody watches.
    vm.ok("start-vm", json!({}));
    let (mut watching, _) = browse(&vm.ok("get-vnc-console", json!({})));
    let waiting = vm.ok("get-vnc-console", json!({}));
    lab.node.virsh(&["destroy", vm.created["domain"].as_str().unwrap()]);
    assert!(watching.end(Duration::from_secs(20)).contains("ended"));
    // Who comes too late is told so.
    let mut late = Socket::open(waiting["websocket_url"].as_str().unwrap()).unwrap();
    assert_eq!(late.greet_rfb(), [0, 0, 0, 1]);
    assert!(!late.end(Duration::from_secs(20)).is_empty());
}
