//! The command line.

use crate::lab::{Lab, SOON, eventually};

#[test]
fn a_first_vm_by_the_command_line_alone() {
    let lab = Lab::shared();
    let name = lab.name("cli");
    let vmyard = |args: &[&str]| lab.server.cli(args);
    let ok = |args: &[&str]| {
        let (code, text) = vmyard(args);
        assert_eq!(code, 0, "{args:?}: {text}");
        text
    };
    ok(&[
        "vm",
        "create",
        &name,
        "--template",
        "tiny",
        "--memory",
        "128",
        "--user",
        "tiny",
        "--password",
        "x",
        "--tag",
        "by=cli",
        "--max-vcpus",
        "2",
        "--hostname",
        "first",
    ]);
    assert!(ok(&["vm", "show", &name, "-o", "json"]).contains("\"max_vcpus\": 2"));
    assert!(ok(&["vm", "start", &name]).contains("running"));
    let list = ok(&["vm", "list", "--tag", "by=cli"]);
    assert!(list.contains(&name) && list.contains("running") && list.contains("NAME"), "{list}");
    eventually("the address is shown", SOON, || ok(&["vm", "show", &name]).contains("(lease)").then_some(()));
    assert!(ok(&["vm", "stop", &name]).contains("shutoff"));
    assert!(ok(&["vm", "xml", &name, "--inactive"]).starts_with("<domain"));
    for (kind, shown) in [("node", "local"), ("pool", "default"), ("network", "default"), ("template", "tiny")] {
        assert!(ok(&[kind, "list"]).contains(shown), "{kind}");
        let text = ok(&[kind, "show", shown]);
        let first: Vec<_> = text.split_whitespace().take(2).collect();
        assert_eq!(first, ["name", shown], "{text}");
    }
    assert!(ok(&["task", "list"]).contains("create-vm"));
    assert!(ok(&["volume", "list"]).contains(&name));
    let reply = ok(&["call", "describe-vm", &format!("{{\"vm\": \"{name}\"}}")]);
    assert!(reply.contains("\"state\": \"shutoff\""), "{reply}");
    ok(&["vm", "delete", &name]);

    let (code, text) = vmyard(&["vm", "show", &name]);
    assert_eq!(code, 1);
    assert!(
        text.contains("error: there is no VM") && text.contains("not_found") && text.contains("request id"),
        "{text}"
    );
    let (code, text) = vmyard(&["call", "list-vms", "no json"]);
    assert!(code == 2 && text.contains("not JSON"), "{text}");
    let (code, text) = vmyard(&["--url", "http://127.0.0.1:1", "vm", "list"]);
    assert!(code == 3 && text.contains("can't reach") && text.contains("hint"), "{text}");
    let (code, text) = vmyard(&["--url", "junk", "vm", "list"]);
    assert!(code == 2 && text.contains("is no address"), "{text}");
    let (code, text) = vmyard(&["--token", "wrong", "vm", "list"]);
    assert!(code == 1 && text.contains("unauthenticated"), "{text}");
    assert!(ok(&["openapi"]).contains("\"openapi\": \"3.1.0\""));
}
