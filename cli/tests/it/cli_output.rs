//! The command line's output: tables, wide tables, JSON, YAML; completion.

use crate::lab::{Lab, SOON, eventually, server::VMYARD, tiny};
use serde_json::{Value, json};
use std::time::Instant;

/// Runs it; panics unless it exits with 0 and has nothing to say on standard error. Returns what it prints.
#[track_caller]
fn ok(lab: &Lab, args: &[&str]) -> String {
    let (code, out, err) = lab.server.cli_apart(args);
    assert_eq!((code, err.as_str()), (0, ""), "{args:?}: {out}");
    out
}

#[test]
fn answers_as_json_and_yaml() {
    let lab = Lab::shared();
    let vm =
        lab.create_with("forms", json!({"tags": {"form": "1.0", "note": "a: 'b' #c"}, "description": "two\nlines"}));
    let json = |args: &[&str]| serde_json::from_str::<Value>(&ok(&lab, &[args, &["-o", "json"]].concat())).unwrap();
    let yaml = |args: &[&str]| serde_saphyr::from_str::<Value>(&ok(&lab, &[args, &["-o", "yaml"]].concat())).unwrap();
    let shown = json(&["vm", "show", &vm.name]);
    assert_eq!((&shown["id"], &shown["tags"]["note"]), (&json!(vm.id), &json!("a: 'b' #c")));
    let mut again = yaml(&["vm", "show", &vm.name]);
    // Read at another moment.
    for moment in ["observed_at", "usage"] {
        again[moment] = shown[moment].clone();
    }
    assert_eq!(again, shown);
    assert_eq!(json(&["vm", "list", "--name", &vm.name])["vms"][0]["description"], "two\nlines");
    let xml = ok(&lab, &["vm", "xml", &vm.name, "--inactive"]);
    assert_eq!(yaml(&["vm", "xml", &vm.name, "--inactive"])["xml"], xml);
    for (kind, rows) in [
        ("node", "nodes"),
        ("pool", "storage_pools"),
        ("network", "networks"),
        ("template", "templates"),
        ("volume", "volumes"),
    ] {
        let (list, again) = (json(&[kind, "list"]), yaml(&[kind, "list"]));
        assert!(list[rows].as_array().is_some_and(|rows| !rows.is_empty()) && again[rows].is_array(), "{kind}: {list}");
    }
    // Others may be made of it meanwhile.
    let without_vms = |mut template: Value| {
        template["vms"].take();
        template
    };
    let called = json(&["call", "describe-template", "{\"template\": \"tiny\"}"]);
    assert_eq!(without_vms(yaml(&["template", "show", "tiny"])), without_vms(called));
    assert_eq!(yaml(&["call", "describe-template", "{\"template\": \"tiny\"}"])["name"], "tiny");
    assert_eq!(yaml(&["openapi"]), json(&["openapi"]));
    // What changes something prints its reply too.
    assert_eq!(json(&["vm", "start", &vm.name])["state"], "running");
    assert_eq!(yaml(&["vm", "stop", &vm.name, "--force"])["forced"], true);
    let tasks = lab.ok("list-tasks", json!({"target": vm.id, "method": "stop-vm"}));
    assert_eq!(json(&["task", "show", tasks["tasks"][0]["id"].as_str().unwrap()])["state"], "done");
    let (code, text) = lab.server.cli(&["vm", "list", "-o", "xml"]);
    assert!(code == 2 && text.contains("[possible values: table, wide, json, yaml]"), "{text}");
}

#[test]
fn tables_for_people() {
    let lab = Lab::own();
    // Nothing there: an empty table is no table, and a word says so where it is in nobody's way.
    for (args, word) in [(["vm", "list"], "no VMs\n"), (["volume", "list"], "no volumes\n")] {
        assert_eq!(lab.server.cli_apart(&args), (0, String::new(), word.to_owned()));
    }
    let none = serde_json::from_str::<Value>(&ok(&lab, &["vm", "list", "-o", "json"])).unwrap();
    assert_eq!(none["vms"], json!([]));

    let long = "a".repeat(63);
    let request = json!({"name": long, "template": "tiny", "vcpus": 2, "memory_mib": 1536, "tags": {"role": "web"}});
    let made = lab.ok("create-vm", request);
    lab.ok("create-vm", json!({"name": "b", "template": "tiny", "vcpus": 1, "memory_mib": 128}));
    let text = ok(&lab, &["vm", "list"]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    let id = made["id"].as_str().unwrap();
    assert!(lines[1].starts_with(&long) && lines[1].contains("1.5 GiB") && lines[1].ends_with(id), "{text}");
    let column = lines[0].find("STATE").unwrap();
    assert!(lines[1..].iter().all(|line| line[column..].starts_with("shutoff")), "{text}");
    let nic = "default,ip=192.168.122.77,mac=52:54:00:00:00:77";
    ok(&lab, &["vm", "create", "c", "--template", "tiny", "--memory", "64", "--network", nic, "--firmware", "uefi"]);
    let shown = ok(&lab, &["vm", "show", "c"]);
    for part in
        ["firmware     uefi\n", "network      default 52:54:00:00:00:77\n", "address      192.168.122.77 (reserved)\n"]
    {
        assert!(shown.contains(part), "{shown}");
    }
    ok(&lab, &["vm", "delete", "c"]);
    ok(&lab, &["vm", "create", "c", "--template", "tiny", "--memory", "64", "--no-network"]);
    assert!(!ok(&lab, &["vm", "show", "c"]).contains("network"));
    ok(&lab, &["vm", "delete", "c"]);
    let wide = ok(&lab, &["vm", "list", "-o", "wide"]);
    let mac = made["networks"][0]["mac"].as_str().unwrap();
    assert!(wide.contains(&format!("default {mac}")) && wide.contains("role=web") && wide.contains("POOL"), "{wide}");
    assert_eq!(ok(&lab, &["vm", "list", "--limit", "1"]).lines().count(), 2);
    assert!(ok(&lab, &["vm", "list", "--sort", "-name"]).lines().nth(1).unwrap().starts_with("b "));

    for (kind, heading) in [
        ("node", "LIBVIRT"),
        ("pool", "USED"),
        ("network", "DHCP"),
        ("template", "IN"),
        ("volume", "BACKING"),
        ("task", "CALLER"),
    ] {
        let (usual, wide) = (ok(&lab, &[kind, "list"]), ok(&lab, &[kind, "list", "-o", "wide"]));
        assert!(!usual.contains(heading) && wide.contains(heading), "{kind}: {usual}{wide}");
    }
    let shown = ok(&lab, &["pool", "show", "default", "--node", "local"]);
    assert!(shown.starts_with("name         default\nid ") && shown.contains("GiB"), "{shown}");
    assert_eq!(ok(&lab, &["volume", "list", "--pool", "default", "--node", "local"]).lines().count(), 3);
    for kind in ["pool", "network", "volume"] {
        let (code, text) = lab.server.cli(&[kind, "list", "--node", "nowhere"]);
        assert!(code == 1 && text.contains("not_found"), "{text}");
    }
    let shown = ok(&lab, &["template", "show", "tiny"]);
    assert!(shown.contains("copies        node local, ") && shown.matches("\nsize ").count() == 1, "{shown}");
    let newest =
        lab.ok("list-tasks", json!({"limit": 1, "method": "create-vm"}))["tasks"][0]["id"].as_str().unwrap().to_owned();
    let shown = ok(&lab, &["task", "show", &newest]);
    assert!(shown.contains("state        done") && shown.contains("step         make-system-disk done, "), "{shown}");
}

#[test]
fn output_that_nobody_reads_is_no_error() {
    let lab = Lab::shared();
    let mut child = lab
        .server
        .command(VMYARD)
        .args(["openapi"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// What the shell gets for this line, whose last word is begun.
fn offered(lab: &Lab, line: &[&str]) -> String {
    let index = (line.len()).to_string();
    let output = lab
        .server
        .command(VMYARD)
        .env("VMYARD_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", index)
        .env("_CLAP_IFS", "\n")
        .env("_CLAP_COMPLETE_COMP_TYPE", "9")
        .args(["--", "vmyard"])
        .args(line)
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{line:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_shell_completes_names_from_the_server() {
    let lab = Lab::shared();
    let vm = lab.create("complete-me");
    let task = lab.ok("list-tasks", json!({"target": vm.id}))["tasks"][0]["id"].as_str().unwrap().to_owned();
    let disk = lab.ok("list-volumes", json!({}))["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|disk| disk["vm"] == vm.name.as_str())
        .unwrap()["name"]
        .as_str()
        .unwrap()
        .to_owned();
    for (line, name) in [
        (&["vm", "show", "complete-"][..], vm.name.as_str()),
        (&["vm", "stop", "--force", ""], &vm.name),
        (&["vm", "create", "x", "--template", "t"], "tiny"),
        (&["vm", "create", "x", "--network", ""], "default"),
        (&["template", "delete", ""], "tiny"),
        (&["node", "show", ""], "local"),
        (&["pool", "show", "def"], "default"),
        (&["network", "show", ""], "default"),
        (&["volume", "show", ""], &disk),
        (&["task", "wait", &task[..8]], &task),
        (&["call", "describe-vm-"], "describe-vm-xml"),
        (&["vm", "pau"], "pause"),
    ] {
        // A server that takes longer than a second offers nothing.
        eventually(&format!("{line:?} offers {name}"), SOON, || {
            offered(&lab, line).lines().any(|offer| offer == name).then_some(())
        });
    }
    assert_eq!(offered(&lab, &["vm", "show", "no-such-"]).trim(), "");
    // The server that the line names is the one that is asked; one that is away, or only listens, offers nothing.
    assert_eq!(offered(&lab, &["--url", "http://127.0.0.1:1", "vm", "show", "comp"]).trim(), "");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let begun = Instant::now();
    assert_eq!(offered(&lab, &["--url", &url, "vm", "show", "comp"]).trim(), "");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());

    for (shell, word) in [("bash", "complete "), ("zsh", "#compdef vmyard"), ("fish", "complete ")] {
        let script = ok(&lab, &["completion", shell]);
        assert!(script.contains(word) && script.contains("VMYARD_COMPLETE") && script.contains(VMYARD), "{script}");
    }
    // In a bash, as a user has it.
    let line = format!(
        "source <({VMYARD} completion bash); COMP_WORDS=(vmyard vm show complete-); COMP_CWORD=3; COMP_TYPE=9; \
         $(complete -p vmyard | sed 's/.*-F \\([^ ]*\\).*/\\1/') vmyard complete- show; echo \"${{COMPREPLY[@]}}\""
    );
    eventually("a bash completes it", SOON, || {
        let output = lab.server.command("bash").args(["-c", &line]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains(&vm.name).then_some(())
    });
}

#[test]
fn templates_by_the_command_line() {
    let lab = Lab::shared();
    let name = lab.name("by-hand");
    let file = tiny().display().to_string();
    let text = ok(
        &lab,
        &[
            "template",
            "register",
            &name,
            "--file",
            &file,
            "--os",
            "tiny",
            "--default-user",
            "tiny",
            "--guest-agent",
            "--pool",
            "default",
            "--node",
            "local",
        ],
    );
    assert!(text.starts_with(&format!("template {name} (")) && text.ends_with("is ready\n"), "{text}");
    let made = lab.ok("describe-template", json!({"template": name}));
    assert_eq!(
        (&made["os"], &made["default_user"], &made["guest_agent"], &made["cloud_init"]),
        (&json!("tiny"), &json!("tiny"), &json!(true), &json!(true))
    );
    assert_eq!(ok(&lab, &["template", "delete", &name]), format!("template {name} is deleted\n"));
    ok(&lab, &["template", "register", &name, "--file", &file, "--no-cloud-init"]);
    assert_eq!(lab.ok("describe-template", json!({"template": name}))["cloud_init"], false);
    let (code, text) = lab.server.cli(&["template", "register", &name, "--file", &file]);
    assert!(code == 1 && text.contains("already_exists") && text.contains("request id"), "{text}");
    ok(&lab, &["template", "delete", &name]);
    let (code, text) = lab.server.cli(&["template", "register", &name, "--file", "relative"]);
    assert!(code == 1 && text.contains("file: must be an absolute path"), "{text}");
}
