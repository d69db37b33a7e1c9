//! The command line's calls that change something: not waited for, waited for later, cancelled, watched on a terminal.

use crate::lab::{Lab, TestVm, large_image, server::VMYARD, shown::Shown};
use serde_json::{Value, json};
use std::{
    io::Write,
    process::{Child, Command, Stdio},
};

/// A command on a terminal of its own.
struct Terminal {
    child: Child,
    shown: Shown,
}

impl Terminal {
    fn run(lab: &Lab, args: &[&str]) -> Terminal {
        // `exec`: a shell that stays beside the command may end by Ctrl-C itself and hide how the command ended.
        let line = format!("exec {VMYARD} {}", args.join(" "));
        let mut command: Command = lab.server.command("script");
        command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let shown = Shown::of(&mut child);
        Terminal { child, shown }
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        self.shown.wait_for(text);
    }

    fn press_ctrl_c(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    }

    /// Waits for its end. Returns the exit code, and all that was written to it.
    fn whole(mut self) -> (i32, String) {
        (self.child.wait().unwrap().code().unwrap(), self.shown.all())
    }

    /// The same, with what is left to be seen on the last line or lines.
    fn end(self) -> (i32, String) {
        let (code, text) = self.whole();
        (code, last(&text))
    }
}

fn last(text: &str) -> String {
    text.rsplit("\x1b[K").next().unwrap().replace('\r', "")
}

/// A stop that waits for a guest that doesn't hear the power button.
fn begin_stop(lab: &Lab, vm: &TestVm) -> String {
    let (code, out, err) = lab.server.cli_apart(&["vm", "stop", &vm.name, "--timeout", "120", "--no-wait"]);
    assert_eq!((code, err.as_str()), (0, ""));
    out.trim().to_owned()
}

#[test]
fn begun_now_and_waited_for_later() {
    let lab = Lab::shared();
    let vm = lab.create("later-cli").deaf();
    let (code, task, err) = lab.server.cli_apart(&["vm", "start", &vm.name, "--no-wait"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let task = task.strip_suffix('\n').unwrap();
    assert_eq!(task.len(), 36, "an id and nothing else: {task}");
    assert_eq!(lab.server.cli(&["task", "wait", task]), (0, format!("VM {} is running\n", vm.name)));
    let (code, out, _) = lab.server.cli_apart(&["task", "wait", task, "-o", "json"]);
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()["id"].as_str()), (0, Some(vm.id.as_str())));
    // A refusal comes at once: nothing was begun.
    let (code, text) = lab.server.cli(&["vm", "start", &vm.name, "--no-wait"]);
    assert!(code == 1 && text.contains("wrong_state") && text.contains("request id"), "{text}");

    let (code, out, _) = lab.server.cli_apart(&["vm", "stop", &vm.name, "--timeout", "120", "--no-wait", "-o", "json"]);
    let task = serde_json::from_str::<Value>(&out).unwrap()["task"].clone();
    assert_eq!((code, &task["method"], &task["state"]), (0, &json!("stop-vm"), &json!("running")));
    let task = task["id"].as_str().unwrap();
    let (code, text) = lab.server.cli(&["task", "wait", task, "--timeout", "1"]);
    assert!(code == 4 && text.contains(&format!("vmyard task wait {task}")), "{text}");
    let (code, text) = lab.server.cli(&["task", "cancel", task]);
    assert_eq!((code, text), (0, format!("task {task} (stop-vm of {}) is failed\n", vm.name)));
    let (code, text) = lab.server.cli(&["task", "wait", task]);
    assert!(code == 1 && text.contains("cancelled") && text.contains("(wrong_state)"), "{text}");
    assert!(lab.server.cli(&["task", "show", task]).1.contains("error        "));
    let (code, text) = lab.server.cli(&["task", "cancel", task]);
    assert!(code == 1 && text.contains("has ended") && text.contains("hint: "), "{text}");
    let (code, text) = lab.server.cli(&["task", "wait", "nonsense"]);
    assert!(code == 2 && text.contains("nonsense"), "{text}");
    // What the caller of the API is told is told to the caller of `call` too.
    let body = json!({"vm": vm.name, "force": true, "wait": false}).to_string();
    let (code, text) = lab.server.cli(&["call", "stop-vm", &body]);
    assert!(code == 0 && text.contains("\"task\": {"), "{text}");
}

#[test]
fn a_terminal_shows_how_far_it_is() {
    let mut lab = Lab::own();
    let image = lab.node.dir.join("large.raw");
    large_image(&image, 2 << 30);
    let register = ["template", "register", "large", "--file", image.to_str().unwrap()];
    let terminal = Terminal::run(&lab, &register);
    terminal.shows("register-template large: ");
    terminal.shows("] ");
    let (code, seen) = terminal.whole();
    let last = last(&seen);
    assert!(code == 0 && last.starts_with("template large (") && last.ends_with(") is ready\n"), "{code} {last:?}");
    assert!(seen.contains("[##########") && seen.contains(" % "), "{seen}");

    // The same errors as elsewhere: those of the checks, and those of the work.
    let (code, last) = Terminal::run(&lab, &register).end();
    assert!(code == 1 && last.contains("(already_exists)") && last.contains("request id: "), "{last}");
    let vm = lab.create("seen").deaf().start();
    let task = begin_stop(&lab, &vm);
    let terminal = Terminal::run(&lab, &["task", "wait", &task]);
    terminal.shows(&format!("stop-vm {}: ", vm.name));
    lab.ok("cancel-task", json!({"task": task}));
    let (code, last) = terminal.end();
    assert!(code == 1 && last.starts_with("error: ") && last.contains("cancelled"), "{last:?}");

    // To a pipe there is only the answer.
    let (code, out, err) = lab.server.cli_apart(&["vm", "stop", &vm.name, "--force"]);
    assert_eq!((code, out, err.as_str()), (0, format!("VM {} is shutoff: its power was cut\n", vm.name), ""));
    lab.ok("delete-template", json!({"template": "large"}));
    vm.delete();

    // Work that fails says the same as where it is waited for.
    lab.server.kill_and_restart(&[("VMYARD_FAIL_AT", "define-domain:before")]);
    let create = ["vm", "create", "doomed", "--template", "tiny", "--memory", "64"];
    let (code, waited) = lab.server.cli(&create);
    let (watched_code, watched) = Terminal::run(&lab, &create).end();
    let without_ids =
        |text: &str| text.lines().map(|line| line.split(": ").next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!((code, watched_code), (1, 1), "{waited}{watched}");
    assert_eq!(without_ids(&watched), without_ids(&waited));
    assert!(watched.contains("\ntask: ") && watched.contains("\nrequest id: "), "{watched}");
}

#[test]
fn ctrl_c_leaves_the_task_at_work() {
    let lab = Lab::shared();
    let vm = lab.create("left").deaf().start();
    let mut terminal = Terminal::run(&lab, &["vm", "stop", &vm.name, "--timeout", "120"]);
    terminal.shows(&format!("stop-vm {}: ", vm.name));
    let tasks = lab.ok("list-tasks", json!({"target": vm.id, "method": "stop-vm"}));
    let task = tasks["tasks"][0]["id"].as_str().unwrap().to_owned();
    terminal.press_ctrl_c();
    let (code, last) = terminal.end();
    assert!(code == 4 && last.contains(&format!("vmyard task wait {task}")), "{code} {last:?}");
    assert!(last.contains(&format!("vmyard task cancel {task}")), "{last:?}");
    assert_eq!(lab.ok("describe-task", json!({"task": task}))["state"], "running");
    assert_eq!(lab.server.cli(&["task", "cancel", &task]).0, 0);
    assert_eq!(vm.state(), "running");
}

#[test]
fn exit_codes_are_told() {
    let lab = Lab::shared();
    let (code, help) = lab.server.cli(&["--help"]);
    assert!(code == 0 && help.contains("Exit codes:\n  0  done") && help.contains("4  the work goes on"), "{help}");
    let (code, text) = lab.server.cli(&["vm", "start", "x", "--plan", "--no-wait"]);
    assert!(code == 2 && text.contains("cannot be used with"), "{text}");
}

#[test]
fn a_plan_is_printed_and_nothing_done() {
    let lab = Lab::own();
    let image = crate::lab::tiny().display().to_string();
    let planned = |args: &[&str]| {
        let (code, out, err) = lab.server.cli_apart(&[args, &["--plan"]].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        assert!(out.starts_with("A plan; nothing was changed.\nmethod       "), "{out}");
        out
    };
    let create = ["vm", "create", "planned", "--template", "tiny", "--memory", "128"];
    let text = planned(&create);
    for part in [
        "target       vm planned\n",
        "node         local\n",
        "step         make-system-disk\n",
        "needs        1 vCPU, 128 MiB\n",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(text.contains("\n+<domain type="), "{text}");
    assert_eq!(lab.ok("list-vms", json!({}))["total"], 0);
    let (_, out, _) = lab.server.cli_apart(&[&create[..], &["--plan", "-o", "json"]].concat());
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["plan"]["method"], "create-vm");
    planned(&["template", "register", "more", "--file", &image]);
    planned(&["template", "delete", "tiny"]);
    let vm = lab.create("plans").deaf();
    planned(&["vm", "start", &vm.name]);
    planned(&["vm", "delete", &vm.name]);
    let vm = vm.start();
    for verb in ["pause", "reboot", "stop"] {
        planned(&["vm", verb, &vm.name]);
    }
    let task = begin_stop(&lab, &vm);
    planned(&["task", "cancel", &task]);
    lab.ok("cancel-task", json!({"task": task}));
    vm.ok("pause-vm", json!({}));
    planned(&["vm", "resume", &vm.name]);
    assert_eq!(vm.state(), "paused");
    let (code, text) = lab.server.cli(&["vm", "start", &vm.name, "--plan"]);
    assert!(code == 1 && text.contains("wrong_state"), "{text}");
}
