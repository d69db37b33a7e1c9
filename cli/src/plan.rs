//! A plan (`--plan`): what a call would do.

use crate::{human, table};
use api::plan::Plan;

/// The plan in words.
pub fn text(plan: &Plan) -> String {
    let mut facts = Vec::new();
    let mut fact = |name: &str, text: String| facts.push((name.to_owned(), text));
    fact("method", plan.method.clone());
    fact("target", format!("{} {}", plan.target.kind, plan.target.name));
    if let Some(node) = &plan.node {
        fact("node", node.clone());
    }
    for step in &plan.steps {
        let only_if = step.only_if.as_ref().map(|when| format!(" (only if {when})")).unwrap_or_default();
        fact("step", format!("{}{only_if}", step.name));
    }
    if let Some(room) = plan.admission {
        let memory = |mib: u64| human::size(mib.saturating_mul(1 << 20));
        let cpus = |n: u32| format!("{n} vCPU{}", if n == 1 { "" } else { "s" });
        fact("needs", format!("{}, {}", cpus(room.vcpus), memory(room.memory_mib)));
        fact("free", format!("{}, {}", cpus(room.free_vcpus), memory(room.free_memory_mib)));
    }
    for (name, bytes) in [("writes", plan.allocates_bytes), ("grows to", plan.grows_to_bytes)] {
        if bytes != 0 {
            fact(name, human::size(bytes));
        }
    }
    for (name, lines) in [("deletes", &plan.deletes), ("at once", &plan.live), ("next start", &plan.pending)] {
        lines.iter().for_each(|line| fact(name, line.clone()));
    }
    let facts = table::facts(&facts);
    match &plan.xml_diff {
        Some(diff) => format!("A plan; nothing was changed.\n{facts}\n{diff}"),
        None => format!("A plan; nothing was changed.\n{facts}"),
    }
}

#[cfg(test)]
mod tests {
    use super::text;
    use serde_json::{Value, json};

    fn words(plan: &Value) -> String {
        text(&serde_json::from_value(plan.clone()).unwrap())
    }

    #[test]
    fn a_plan_in_words() {
        let target = json!({"kind": "vm", "id": "902acd38-c592-4e73-b965-4ce91869ecc9", "name": "web"});
        let mut plan = json!({
            "method": "modify-vm-spec",
            "target": target,
            "node": "local",
            "steps": [{"name": "redefine"}, {"name": "hot-plug", "only_if": "the guest has the memory driver"}],
            "xml_diff": "-<vcpu>1</vcpu>\n+<vcpu>2</vcpu>\n",
            "admission": {"vcpus": 2, "memory_mib": 512, "free_vcpus": 7, "free_memory_mib": 20480},
            "allocates_bytes": 4096,
            "grows_to_bytes": 1_073_741_824_u64,
            "deletes": ["/pool/old.qcow2"],
            "live": ["memory: 512 MiB"],
            "pending": ["vcpus: 2"],
        });
        let wanted = "\
A plan; nothing was changed.
method       modify-vm-spec
target       vm web
node         local
step         redefine
step         hot-plug (only if the guest has the memory driver)
needs        2 vCPUs, 512 MiB
free         7 vCPUs, 20 GiB
writes       4 KiB
grows to     1 GiB
deletes      /pool/old.qcow2
at once      memory: 512 MiB
next start   vcpus: 2

-<vcpu>1</vcpu>
+<vcpu>2</vcpu>
";
        assert_eq!(words(&plan), wanted);
        for (field, nothing) in [("xml_diff", json!(null)), ("admission", json!(null)), ("node", json!(null))] {
            plan[field] = nothing;
        }
        for field in ["deletes", "live", "pending", "steps"] {
            plan[field] = json!([]);
        }
        for field in ["allocates_bytes", "grows_to_bytes"] {
            plan[field] = json!(0);
        }
        assert_eq!(words(&plan), "A plan; nothing was changed.\nmethod       modify-vm-spec\ntarget       vm web\n");
    }
}
