//! Requests made up by Schemathesis from the committed OpenAPI document: such that fit it, and such that don't. No answer may
//! be one that the document doesn't have, none may be a fault of ours, none may take long; what fits is taken, the rest is
//! refused. `scripts/schemathesis/` has its versions, its configuration, and which methods are left out and why.

use crate::lab::{Lab, cached, root};
use serde_json::json;
use std::{
    process::{Command, Stdio},
    time::Instant,
};

/// Requests for each method, beside those at the limits of each field: 20 to 90 s in all, by what else runs.
const EXAMPLES: &str = "15";
/// The same for `make test-full`.
const EXAMPLES_FULL: &str = "150";

#[test]
fn the_api_is_as_its_openapi_document_says() {
    let lab = Lab::own();
    // What its requests name beside what it makes up: see the dictionaries in its configuration.
    for (name, start) in [("fuzz-a", true), ("fuzz-b", false)] {
        lab.ok("create-vm", json!({"name": name, "template": "tiny", "vcpus": 1, "memory_mib": 64, "start": start}));
    }
    let full = std::env::var_os("VMYARD_TEST_FULL").is_some();
    let examples = if full { EXAMPLES_FULL } else { EXAMPLES };
    // Another seed sends other requests; the same one the same, so a failure can be looked at again.
    let seed = std::env::var("VMYARD_FUZZ_SEED").unwrap_or_else(|_| "1".to_owned());
    let config = root().join("scripts/schemathesis");
    let begun = Instant::now();
    let output = Command::new(cached("schemathesis/bin/schemathesis", "schemathesis"))
        .arg("--config-file")
        .arg(config.join("schemathesis.toml"))
        .args(["run", "--no-color", "--url", &lab.server.url, "--seed", &seed, "--max-examples", examples])
        .arg(root().join("openapi.json"))
        .env("SCHEMATHESIS_HOOKS", config.join("hooks.py"))
        // By the environment: everybody sees a command line.
        .env("VMYARD_TOKEN", &lab.server.token)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(&lab.dir.path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    println!("{text}\nin {:?}", begun.elapsed());
    assert!(output.status.success(), "VMYARD_FUZZ_SEED={seed}:\n{text}");
    // That much was sent, and not only refused.
    let log = lab.server.log();
    let answers = |method: &str, status: u16| log.matches(&format!("\"/api/{method}\" status={status}")).count();
    for method in ["create-vm", "describe-vm", "list-vms", "create-token"] {
        assert!(answers(method, 200) > 0 && answers(method, 400) > 0, "{method}:\n{text}");
    }
    // Which of these finds its VM in the state that it needs depends on what came before, and how fast that was.
    let of_state = ["start-vm", "stop-vm", "pause-vm", "resume-vm", "modify-vm-spec"];
    assert!(of_state.iter().map(|method| answers(method, 200)).sum::<usize>() > 0, "{text}");
    assert!(!log.contains("panicked"), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}
