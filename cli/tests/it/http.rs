//! What clients send that they shouldn't: each gets the right status and code, names the field, and changes nothing.

use crate::lab::{Directory, Lab, SOON, eventually, server::VMYARD};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

#[test]
fn bad_requests_name_the_field_and_change_nothing() {
    let lab = Lab::shared();
    let good = json!({"name": "never", "template": "tiny", "vcpus": 1, "memory_mib": 64});
    let with = |key: &str, value: Value| {
        let mut request = good.clone();
        request[key] = value;
        request
    };
    let nics = |nics: Value| with("networks", nics);
    for (request, field) in [
        (with("colour", json!("red")), "colour"),
        (with("plan", json!("yes")), "plan"),
        (with("wait", json!("yes")), "wait"),
        (with("client_token", json!("a\u{0}b")), "client_token"),
        (with("client_token", json!(7)), "client_token"),
        (with("start", json!(1)), "start"),
        (with("firmware", json!("efi")), "firmware"),
        (with("template", json!("a\u{0}b")), "template"),
        (with("template", json!("x".repeat(256))), "template"),
        (with("tags", json!([])), "tags"),
        (with("vcpus", json!("1")), "vcpus"),
        (with("vcpus", json!(0)), "vcpus"),
        (with("vcpus", json!(10_000)), "vcpus"),
        (with("vcpus", json!(-1)), "vcpus"),
        (with("vcpus", json!(1.5)), "vcpus"),
        (with("memory_mib", json!(u64::MAX)), "memory_mib"),
        (with("memory_mib", json!(1)), "memory_mib"),
        (with("max_vcpus", json!(0)), "max_vcpus"),
        (with("max_memory_mib", json!(32)), "max_memory_mib"),
        (with("name", json!("")), "name"),
        (with("name", json!("x".repeat(64))), "name"),
        (with("name", json!("a/b")), "name"),
        (with("name", json!("a'b")), "name"),
        (with("name", json!("a;b")), "name"),
        (with("name", json!("a\nb")), "name"),
        (with("name", json!("虚拟机")), "name"),
        (with("name", json!("6f1f3c1e-8a0b-4a7e-9d55-000000000001")), "name"),
        (with("name", Value::Null), "name"),
        (with("tags", json!({"": "x"})), "tags"),
        (with("tags", json!({"a": "x\ny"})), "tags"),
        (with("tags", json!({"a": 1})), "tags.a"),
        (with("description", json!("bell \u{7}")), "description"),
        (nics(json!([{"network": "default", "mac": "zz"}])), "networks[0].mac"),
        (nics(json!([{"network": "default", "mac": "ff:ff:ff:ff:ff:ff"}])), "networks[0].mac"),
        (
            nics(
                json!([{"network": "default", "mac": "52:54:00:00:00:01"}, {"network": "default", "mac": "52:54:00:00:00:01"}]),
            ),
            "networks[1].mac",
        ),
        (nics(json!(vec![json!({"network": "default"}); 9])), "networks"),
        (nics(json!([["default", null, null]])), "networks[0]"),
        (nics(json!([{"network": "default", "ip": "192.168.122.300"}])), "networks[0].ip"),
        (with("cloud_init", json!({"user": "A B"})), "cloud_init.user"),
        (with("cloud_init", json!({"ssh_keys": ["no key"]})), "cloud_init.ssh_keys[0]"),
        (with("cloud_init", json!({"password": "a\nb"})), "cloud_init.password"),
        (with("cloud_init", json!({"hostname": "-a"})), "cloud_init.hostname"),
        (with("cloud_init", json!({"user_data": "junk"})), "cloud_init.user_data"),
        (with("cloud_init", json!({"user_data": "Content-Type: multipart/mixed"})), "cloud_init.user_data"),
        (with("pool", json!("vmyard-seeds")), "pool"),
        (with("cloud_init", json!({"pass": "x"})), "cloud_init.pass"),
    ] {
        let problem = lab.err("create-vm", request.clone(), 400, "invalid");
        assert_eq!(problem["errors"][0]["field"], field, "{request}: {problem}");
        assert!(problem["request_id"].is_string());
    }
    // JSON that another program may read in another way than we would.
    for (more, field) in [(r#""vcpus":2"#, "vcpus"), (r#""cloud_init":{"user":"a","user":"b"}"#, "cloud_init.user")] {
        let body = good.to_string().replace('}', &format!(",{more}}}"));
        let answer = lab.server.post("create-vm", Some(&lab.server.token), "application/json", body);
        assert_eq!((answer.status, &answer.body["errors"][0]["field"]), (400, &json!(field)), "{answer:?}");
    }
    let plan = lab
        .ok("create-vm", json!({"name": "never", "template": "tiny", "vcpus": 1.0, "memory_mib": 64.0, "plan": true}));
    assert_eq!(plan["plan"]["admission"]["memory_mib"], 64);
    for (key, value) in [("template", "nix"), ("pool", "nix"), ("node", "nix")] {
        lab.err("create-vm", with(key, json!(value)), 404, "not_found");
    }
    let problem = lab.err("create-vm", nics(json!([{"network": "nix"}])), 404, "not_found");
    assert_eq!(problem["detail"], "there is no network \"nix\" on node local");
    let problem = lab.err("create-vm", with("memory_mib", json!(16_000_000)), 409, "no_capacity");
    assert!(problem["detail"].as_str().unwrap().contains("16000000 MiB"), "{problem}");
    assert_eq!(lab.ok("list-vms", json!({"name": "never"}))["total"], 0);
}

#[test]
fn bad_requests_of_other_methods_change_nothing_either() {
    let lab = Lab::shared();
    let template = |key: &str, value: &str| {
        let mut request = json!({"name": "never", "file": "/dev/null"});
        request[key] = json!(value);
        ("register-template", request, key.to_owned())
    };
    let node = |key: &str, value: Value| {
        let mut request = json!({"name": "never", "uri": "qemu+tcp://192.0.2.1/system"});
        request[key] = value;
        ("add-node", request, key.to_owned())
    };
    let token = |key: &str, value: &str| {
        let mut request = json!({"name": "never", "role": "viewer"});
        request[key] = json!(value);
        ("create-token", request, key.to_owned())
    };
    let one = |method: &'static str, key: &str, value: Value| {
        let request: Value = [(key.to_owned(), value)].into_iter().collect();
        (method, request, key.to_owned())
    };
    for (method, request, field) in [
        template("name", "a/b"),
        template("file", "relative.qcow2"),
        template("file", "/a/../b"),
        template("file", "/a/"),
        template("file", "/a\u{0}b"),
        template("file", "/never/there"),
        template("os", "Debian 12"),
        template("default_user", "Root"),
        node("name", json!("")),
        node("uri", json!("http://192.0.2.1/")),
        node("uri", json!("qemu+ext://192.0.2.1/system")),
        node("uri", json!("qemu+ssh://192.0.2.1/system?command=/bin/sh")),
        node("uri", json!("qemu+tcp://192.0.2.1/sys\u{0}tem")),
        node("virt_type", json!("xen")),
        node("cpu_overcommit", json!(0)),
        node("memory_overcommit", json!(1e9)),
        node("reserved_memory_mib", json!(-1)),
        node("default_pool_path", json!("pools")),
        node("seed_pool_path", json!("/a/..")),
        token("name", "虚拟机"),
        token("role", "root"),
        token("role", "anyone"),
        token("expires_at", "tomorrow"),
        token("expires_at", "2001-01-01T00:00:00Z"),
        one("start-vm", "vm", json!("")),
        one("start-vm", "vm", json!({"id": "x"})),
        ("stop-vm", json!({"vm": "nix", "timeout_s": 0}), "timeout_s".to_owned()),
        ("reboot-vm", json!({"vm": "nix", "timeout_s": 3601}), "timeout_s".to_owned()),
        one("pause-vm", "vm", json!("a\nb")),
        ("describe-vm-xml", json!({"vm": "nix", "inactive": "no"}), "inactive".to_owned()),
        one("describe-task", "task", json!("1")),
        one("cancel-task", "task", Value::Null),
        one("list-tasks", "state", json!("lost")),
        one("list-tasks", "cursor", json!("bm90IGFuIGlk")),
        one("list-vms", "sort", json!("colour")),
        one("list-vms", "cursor", json!("")),
        ("list-vms", json!({"tags": {"a": null}}), "tags.a".to_owned()),
        one("list-volumes", "state", json!("lost")),
        one("list-nodes", "limit", json!(1001)),
        one("list-templates", "limit", json!("1")),
        one("list-audit", "since", json!("2026-11-24")),
        one("sign-in", "token", json!("")),
        one("sign-out", "all", json!(true)),
    ] {
        let problem = lab.err(method, request.clone(), 400, "invalid");
        assert_eq!(problem["errors"][0]["field"], field, "{method} {request}: {problem}");
    }
    let no_never = |method: &str, rows: &str| {
        let list = lab.ok(method, json!({"limit": 1000}));
        assert!(list[rows].as_array().unwrap().iter().all(|row| row["name"] != "never"), "{list}");
    };
    no_never("list-templates", "templates");
    no_never("list-nodes", "nodes");
    no_never("list-tokens", "tokens");
}

#[test]
fn a_mac_in_use_and_a_name_in_other_case() {
    let lab = Lab::shared();
    let vm = lab.create_with("mac", json!({"networks": [{"network": "default", "mac": "52:54:00:AB:cd:01"}]}));
    assert_eq!(vm.created["networks"][0]["mac"], "52:54:00:ab:cd:01");
    let request = json!({"name": "mac2", "template": "tiny", "vcpus": 1, "memory_mib": 64,
                         "networks": [{"network": "default", "mac": "52:54:00:ab:CD:01"}]});
    let problem = lab.err("create-vm", request, 400, "invalid");
    assert!(problem["detail"].as_str().unwrap().contains(&vm.name), "{problem}");
    let request = json!({"name": vm.name.to_uppercase(), "template": "tiny", "vcpus": 1, "memory_mib": 64});
    lab.err("create-vm", request, 409, "already_exists");
    // Found without case, too.
    assert_eq!(lab.ok("describe-vm", json!({"vm": vm.name.to_uppercase()}))["id"], vm.id);
    assert_eq!(lab.ok("describe-vm", json!({"vm": vm.id.to_uppercase()}))["id"], vm.id);
}

#[test]
fn what_is_no_call_is_refused() {
    let lab = Lab::shared();
    let server = &lab.server;
    let token = Some(server.token.as_str());
    let post = |token: Option<&str>, kind: &str, body: &str| server.post("list-vms", token, kind, body.to_owned());

    let answer = post(None, "application/json", "{}");
    assert_eq!((answer.status, answer.body["code"].as_str()), (401, Some("unauthenticated")));
    assert_eq!(post(Some("vmy_wrong"), "application/json", "{}").status, 401);
    // What a web page may send without asking.
    assert_eq!(post(token, "text/plain", "{}").status, 400);
    assert_eq!(post(token, "application/x-www-form-urlencoded", "a=b").status, 400);
    assert_eq!(post(token, "application/json; charset=utf-8", "").status, 200);
    for body in [
        "[]",
        "null",
        "{",
        " ",
        "{} {}",
        "\u{feff}{}",
        "{\"limit\": 1, \"limit\": 1}",
        "{\"name\": \"\\ud800\"}",
        "\u{0}",
        "{\"limit\": 1e99}",
        "{\"limit\": 0}",
        "{\"limit\": 1001}",
    ] {
        let answer = post(token, "application/json", body);
        assert_eq!((answer.status, answer.body["code"].as_str()), (400, Some("invalid")), "{body}: {answer:?}");
    }
    let deep = format!("{}{}", "{\"a\":".repeat(200), "1".to_owned() + &"}".repeat(200));
    assert_eq!(post(token, "application/json", &deep).status, 400);
    let answer = post(token, "application/json", &format!("{{\"name\": \"{}\"}}", "x".repeat(2 << 20)));
    assert_eq!((answer.status, answer.body["code"].as_str()), (413, Some("too_large")), "{answer:?}");

    let answer = server.call("no-such-method", json!({}));
    assert_eq!((answer.status, answer.body["code"].as_str()), (404, Some("not_found")));
    let answer = server.get("/api/list-vms");
    assert_eq!((answer.status, &answer.body["status"]), (405, &json!(405)));
    assert!(answer.body["detail"].as_str().unwrap().starts_with("the request is not valid: methods"), "{answer:?}");
    assert_eq!(server.get("/nowhere").status, 404);
    for path in ["list-vms/", "%ff", "%00", "LIST-VMS", "list-vms%2f"] {
        let answer = server.post(path, token, "application/json", "{}".to_owned());
        let what = (answer.status, answer.kind.as_str(), answer.body["code"].as_str());
        assert_eq!(what, (404, "application/problem+json", Some("not_found")), "{path}: {answer:?}");
    }
    let answer = server.post("openapi.json", token, "application/json", "{}".to_owned());
    assert_eq!((answer.status, answer.kind.as_str()), (405, "application/problem+json"));
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.get("/api/openapi.json").body["openapi"], "3.1.0");
    assert!(!server.log().contains("panicked"));
    assert!(!server.log().contains(&server.token));
}

#[test]
fn a_client_that_hangs_up_does_not_stop_the_work() {
    let lab = Lab::shared();
    let name = lab.name("hangup");
    let body = json!({"name": name, "template": "tiny", "vcpus": 1, "memory_mib": 64}).to_string();
    let address = lab.server.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST /api/create-vm HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        lab.server.token,
        body.len()
    )
    .unwrap();
    // Gone as soon as the task is there, before it can have ended.
    eventually("the task is there", SOON, || {
        let tasks = lab.ok("list-tasks", json!({"method": "create-vm", "limit": 1000}));
        tasks["tasks"].as_array()?.iter().any(|task| task["target"]["name"] == name).then_some(())
    });
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    let _ = stream.read(&mut [0; 16]);
    eventually("the VM is made all the same", SOON, || {
        let tasks = lab.ok("list-tasks", json!({"method": "create-vm", "state": "done", "limit": 1000}));
        tasks["tasks"].as_array()?.iter().any(|task| task["target"]["name"] == name).then_some(())
    });
    lab.ok("delete-vm", json!({"vm": name}));
}

#[test]
fn a_client_that_dawdles_does_not_keep_the_server() {
    let mut lab = Lab::own();
    let address = lab.server.url.trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(
        stream,
        "POST /api/list-vms HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{",
        lab.server.token
    )
    .unwrap();
    let begun = std::time::Instant::now();
    assert!(lab.server.terminate());
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    lab.server.kill_and_restart(&[]);
}

#[test]
fn the_data_directory_is_closed_and_a_new_token_replaces_the_old() {
    use std::os::unix::fs::PermissionsExt;
    let mut lab = Lab::own();
    let data = lab.dir.path.join("data");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&data), mode(&data.join("admin.token"))), (0o700, 0o600));
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let old = lab.server.token.clone();
    std::fs::remove_file(data.join("admin.token")).unwrap();
    lab.server.kill_and_restart(&[]);
    assert_eq!(mode(&data), 0o700);
    assert_ne!(lab.server.token, old);
    assert_eq!(lab.server.post("list-vms", Some(&old), "application/json", "{}").status, 401);
    lab.ok("list-vms", json!({}));
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_the_server() {
    let dir = Directory::new();
    let config = format!("[nodes.local]\nuri = \"qemu+unix:///system?socket={}/none\"\n", dir.path.display());
    std::fs::write(dir.path.join("vmyard.toml"), config).unwrap();
    let mut server = Command::new(VMYARD)
        .args(["serve", "--listen", "127.0.0.1:0", "--stop-at-eof"])
        .arg("--config")
        .arg(dir.path.join("vmyard.toml"))
        .arg("--data-dir")
        .arg(dir.path.join("data"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(server.stderr.take());
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("http://"), "{line}");
    drop(server.stdin.take());
    let stopped = eventually("it stops", SOON, || server.try_wait().unwrap());
    assert!(stopped.success(), "{stopped}");
}
