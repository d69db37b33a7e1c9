//! What a piece of work will do, told before it is done: the answer to `"plan": true`.

use crate::{Result, admission::Reservation};
use api::{
    plan::{Plan, PlannedAdmission, PlannedStep},
    task::Target,
};
use futures::future::BoxFuture;
use hypervisor::Node;
use similar::TextDiff;

/// What a piece of work will do. A test compares the steps with those that the task then has.
#[derive(Default)]
pub struct Outline {
    node: Option<String>,
    steps: Vec<PlannedStep>,
    xml: Option<BoxFuture<'static, Result<XmlChange>>>,
    admission: Option<PlannedAdmission>,
    allocates_bytes: u64,
    grows_to_bytes: u64,
    deletes: Vec<String>,
    live: Vec<String>,
    pending: Vec<String>,
}

/// A domain's definition before and after; empty where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct XmlChange {
    /// Before.
    pub before: String,
    /// After.
    pub after: String,
}

impl Outline {
    /// Work of these steps, in their order.
    pub fn of(steps: &[&str]) -> Outline {
        let step = |name: &&str| PlannedStep { name: (*name).to_owned(), only_if: None };
        Outline { steps: steps.iter().map(step).collect(), ..Outline::default() }
    }

    /// A further step, done only under a condition.
    pub fn then_if(mut self, name: &str, condition: impl Into<String>) -> Outline {
        self.steps.push(PlannedStep { name: name.to_owned(), only_if: Some(condition.into()) });
        self
    }

    /// On this node.
    pub fn on(mut self, node: &Node) -> Outline {
        self.node = Some(node.name().to_owned());
        self
    }

    /// With this room kept.
    pub fn admitted(mut self, reservation: &Reservation) -> Outline {
        self.admission = Some(reservation.admission);
        self
    }

    /// Writing so many bytes, of something that may grow to so many.
    pub fn allocates(mut self, now: u64, at_most: u64) -> Outline {
        self.allocates_bytes += now;
        self.grows_to_bytes += at_most;
        self
    }

    /// Deleting these, one in each step.
    pub fn deletes(mut self, orphans: impl Iterator<Item = String>) -> Outline {
        self.deletes.extend(orphans);
        self
    }

    /// Changing these fields of a VM: those that are in effect at once, and those that wait for its next boot.
    pub fn in_effect(mut self, live: &[String], pending: &[String]) -> Outline {
        (self.live, self.pending) = (live.to_vec(), pending.to_vec());
        self
    }

    /// Changing a domain's definition so. Only a plan asks for it.
    pub fn changing_xml(mut self, change: impl Future<Output = Result<XmlChange>> + Send + 'static) -> Outline {
        self.xml = Some(Box::pin(change));
        self
    }

    /// The plan on the wire.
    pub(super) async fn into_plan(self, method: &str, target: Target) -> Result<Plan> {
        let change = match self.xml {
            Some(change) => Some(change.await?),
            None => None,
        };
        Ok(Plan {
            method: method.to_owned(),
            target,
            node: self.node,
            steps: self.steps,
            xml_diff: change.as_ref().and_then(diff),
            admission: self.admission,
            allocates_bytes: self.allocates_bytes,
            grows_to_bytes: self.grows_to_bytes,
            deletes: self.deletes,
            live: self.live,
            pending: self.pending,
        })
    }
}

fn diff(change: &XmlChange) -> Option<String> {
    let lines = |text: &str| if text.is_empty() { String::new() } else { format!("{}\n", text.trim_end()) };
    let (before, after) = (lines(&change.before), lines(&change.after));
    let names = (
        if before.is_empty() { "/dev/null" } else { "domain.xml" },
        if after.is_empty() { "/dev/null" } else { "domain.xml" },
    );
    let diff = TextDiff::from_lines(&before, &after);
    Some(diff.unified_diff().header(names.0, names.1).to_string()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_is_one_that_patch_takes() {
        let change = |before: &str, after: &str| XmlChange { before: before.to_owned(), after: after.to_owned() };
        assert_eq!(diff(&change("<a/>", "<a/>\n")), None);
        assert_eq!(diff(&change("", "<a/>")).unwrap(), "--- /dev/null\n+++ domain.xml\n@@ -0,0 +1 @@\n+<a/>\n");
        let text = diff(&change("<a>\n <b/>\n</a>\n", "<a>\n <c/>\n</a>\n")).unwrap();
        assert_eq!(text, "--- domain.xml\n+++ domain.xml\n@@ -1,3 +1,3 @@\n <a>\n- <b/>\n+ <c/>\n </a>\n");
    }
}
