//! A VM that somebody moves to another node past Vmyard, and back.

use crate::lab::{Lab, NodeProcess, SOON, eventually};
use api::Time;
use serde_json::{Value, json};

fn cpu(lab: &Lab, vm: &str) -> Vec<Option<f64>> {
    let start = Time(Time::now().0 - 600_000);
    let metrics = lab.ok("describe-vm-metrics", json!({"vm": vm, "start": start, "step_s": 1, "history": true}));
    for series in metrics["series"].as_array().unwrap() {
        let values = series["values"].as_array().unwrap().iter().filter_map(Value::as_f64);
        // Counters that begin anew would be rates below zero, or as large as all that was counted.
        assert!(values.into_iter().all(|value| (0.0..1e9).contains(&value)), "{series}");
    }
    let series = metrics["series"].as_array().unwrap();
    let cpu = series.iter().find(|one| one["name"] == "cpu_percent");
    cpu.map_or(Vec::new(), |cpu| cpu["values"].as_array().unwrap().iter().map(Value::as_f64).collect())
}

#[test]
fn its_counters_begin_anew_and_its_figures_make_sense() {
    let lab = Lab::with_settings("\n[metrics]\ninterval_s = 1\n");
    let [here, there] = ["second", "third"].map(|name| {
        let node = NodeProcess::start_remote(&lab.dir.path.join(name));
        lab.ok("add-node", node.add_request(name));
        node
    });
    let vm = lab.create_with("moved", json!({"node": "second"})).start();
    let (id, domain) = (vm.id.as_str(), vm.created["domain"].as_str().unwrap());
    let known = || cpu(&lab, id).iter().flatten().count();
    eventually("it is measured", SOON, || (known() > 3).then_some(()));
    let go = |from: &NodeProcess, to: &NodeProcess| {
        from.virsh(&["migrate", "--live", "--persistent", "--undefinesource", "--unsafe", domain, to.uri()]);
    };
    go(&here, &there);
    assert!(there.virsh(&["list", "--name"]).contains(domain));
    // Vmyard knows it on its own node only, and says so.
    eventually("it is not measured there", SOON, || {
        let vm = vm.describe();
        println!("{} {}", vm["state"], vm["node"]);
        (vm["state"] == "unknown" && cpu(&lab, id).last()?.is_none()).then_some(())
    });
    go(&there, &here);
    let before = known();
    eventually("it is measured again", SOON, || (known() > before + 3).then_some(()));
    assert_eq!(vm.state(), "running");
    let steps = cpu(&lab, id);
    let first = steps.iter().position(Option::is_some).unwrap();
    assert!(steps[first..].iter().any(Option::is_none), "there is a gap between: {steps:?}");
}
