//! `vmyard vm reset-password`, `reset-keypair`, `exec` and `show --guest`.

use crate::lab::{Lab, SOON, eventually, login::KeyPair};
use serde_json::json;
use std::fs;

#[test]
fn guests_by_the_command_line() {
    let lab = Lab::own();
    let key = KeyPair::make(&lab, "key");
    let vm = lab.create_with("cli", json!({"cloud_init": {"user": "ann", "password": "the old one"}, "start": true}));
    let vm = vm.ready();
    let cli = |args: &[&str]| lab.server.cli(&[&["vm"], args].concat());
    eventually("its agent answers", SOON, || (cli(&["exec", &vm.name, "--", "true"]).0 == 0).then_some(()));
    // What is printed last is the password.
    let (code, text) = cli(&["reset-password", &vm.name, "ann"]);
    assert!(code == 0 && text.contains("the password of ann in VM") && text.contains("(by guest-agent)"), "{text}");
    assert!(vm.serial_login("ann", text.trim().lines().last().unwrap()));
    let file = lab.dir.path.join("password");
    fs::write(&file, "from a file 1 A\n").unwrap();
    let (code, text) = cli(&["reset-password", &vm.name, "ann", "--password-file", file.to_str().unwrap()]);
    assert!(code == 0 && text.ends_with("set (by guest-agent)\n"), "{text}");
    assert!(vm.serial_login("ann", "from a file 1 A"));
    let public = format!("{}.pub", key.path);
    let (code, text) = cli(&["reset-keypair", &vm.name, "ann", "--ssh-key", &public, "--method", "cloud-init"]);
    assert!(code == 0 && text.contains("set when the guest boots the next time (by cloud-init)"), "{text}");
    assert_eq!(cli(&["reset-keypair", &vm.name, "ann"]).0, 2);
    assert_eq!(cli(&["reset-password", &vm.name, "ann", "--method", "magic"]).0, 2);

    let (code, out, err) =
        lab.server.cli_apart(&["vm", "exec", &vm.name, "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((code, out.as_str(), err.as_str()), (7, "out\n", "err\nit ended with exit code 7\n"));
    let (code, text) = cli(&["exec", &vm.name, "--timeout", "1", "--", "sleep", "20"]);
    assert!(code == 4 && text.contains("still running"), "{text}");
    let (code, text) = cli(&["show", &vm.name, "--guest"]);
    assert!(code == 0 && text.contains("Vmyard tiny") && text.contains("SSH keys of ann: pending"), "{text}");
    assert!(text.contains("/ ext4 "), "{text}");
}
