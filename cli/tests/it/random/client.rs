//! A client: random calls, each answer judged by the model.

use super::{
    Dice, Stage,
    model::{Op, Refusal, Says, State},
};
use crate::lab::Answer;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long a disturbance and what it leaves may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often something is looked at again.
const LOOK: Duration = Duration::from_millis(50);

pub struct Client<'a> {
    stage: &'a Stage,
    number: usize,
    dice: Dice,
    tokens: u32,
}

/// A call to make.
struct Request {
    method: &'static str,
    op: Op,
    body: Value,
}

impl Client<'_> {
    pub fn new(stage: &Stage, number: usize) -> Client<'_> {
        Client { stage, number, dice: Dice::new(0), tokens: 0 }
    }

    /// Five to fifteen operations, which this seed decides (and the VMs' states).
    pub fn sequence(&mut self, seed: u64) -> Result<(), String> {
        self.dice = Dice::new(seed);
        for _ in 0..5 + self.dice.below(11) {
            if self.stage.is_over() {
                break;
            }
            match self.dice.below(20) {
                0 => self.cancel_any()?,
                1 | 2 => self.look_over()?,
                _ => self.act()?,
            }
        }
        Ok(())
    }

    fn act(&mut self) -> Result<(), String> {
        let own = !self.dice.one_in(3);
        let names: Vec<&String> = self
            .stage
            .vms
            .keys()
            .filter(|name| self.is_own(name) == own && (own || name.starts_with("shared")))
            .collect();
        let name = names[self.dice.below(names.len() as u64) as usize].clone();
        let request = self.choose(&name);
        if self.dice.one_in(12) {
            return self.plan(&name, request);
        }
        self.perform(&name, request)
    }

    fn is_own(&self, name: &str) -> bool {
        name.starts_with(&format!("own-{}-", self.number))
    }

    /// Mostly what goes with the VM's state, sometimes anything.
    fn choose(&mut self, name: &str) -> Request {
        let states: Vec<State> = self.stage.vm(name).states().into_iter().collect();
        let (create, on) = (Op::Create { start: self.dice.one_in(2) }, Op::Start);
        let (cut, ask) = (Op::Stop { force: true }, Op::Stop { force: false });
        let anything = [create, on, cut, ask, Op::Reboot, Op::Pause, Op::Resume, Op::Modify, Op::Delete, Op::Look];
        let fitting: &[Op] = match states[self.dice.below(states.len() as u64) as usize] {
            _ if self.dice.one_in(4) => &anything,
            State::Absent => &[create],
            State::Off => &[on, on, Op::Modify, Op::Delete, Op::Delete, Op::Look],
            State::Running => &[cut, cut, ask, Op::Reboot, Op::Pause, Op::Pause, Op::Modify, Op::Look],
            State::Paused => &[Op::Resume, Op::Resume, cut, Op::Look],
        };
        let op = fitting[self.dice.below(fitting.len() as u64) as usize];
        let (method, body) = match op {
            Op::Create { start } => ("create-vm", self.creation(name, start)),
            Op::Start => ("start-vm", json!({"vm": name})),
            Op::Stop { force: true } => ("stop-vm", json!({"vm": name, "force": true})),
            Op::Stop { force: false } => ("stop-vm", json!({"vm": name, "timeout_s": 1})),
            Op::Reboot => ("reboot-vm", json!({"vm": name, "force": true})),
            Op::Pause => ("pause-vm", json!({"vm": name})),
            Op::Resume => ("resume-vm", json!({"vm": name})),
            Op::Modify => ("modify-vm-spec", self.modification(name)),
            Op::Delete => ("delete-vm", json!({"vm": name})),
            Op::Look => ("describe-vm", json!({"vm": name})),
        };
        Request { method, op, body }
    }

    fn modification(&mut self, name: &str) -> Value {
        let number = self.dice.below(1000);
        let mut body = json!({"vm": name, "vcpus": 1 + number % 2, "description": format!("number {number}")});
        if self.dice.one_in(3) {
            body["tags"] = json!({"number": number.to_string()});
        }
        body
    }

    fn creation(&mut self, name: &str, start: bool) -> Value {
        let template = if self.dice.one_in(8) { "tiny" } else { "blank" };
        let mut body = json!({"name": name, "template": template, "vcpus": 1, "memory_mib": 64, "start": start});
        if self.dice.one_in(8) {
            body["firmware"] = json!("uefi");
        }
        // A VM's name has one address, so nobody but the VM before it can be in the way.
        if self.dice.one_in(3) {
            let number = self.stage.vms.keys().position(|other| other == name).unwrap_or_default();
            body["networks"] = json!([{"network": "default", "ip": format!("192.168.122.{}", 10 + number)}]);
        }
        body
    }

    /// Makes the call, waits for its end, and tells the model.
    fn perform(&mut self, name: &str, request: Request) -> Result<(), String> {
        let Request { method, op, mut body } = request;
        if op != Op::Look {
            if self.dice.one_in(2) {
                self.tokens += 1;
                body["client_token"] = json!(format!("{}-{}", self.number, self.tokens));
            }
            if self.dice.one_in(4) {
                body["wait"] = json!(false);
            }
        }
        let begun = self.stage.disturbances();
        let call = self.stage.vm(name).begin(op, format!("{method} {body}"));
        let mut answer = self.send(method, &body)?;
        if answer.status == 202 {
            let task = answer.body["task"]["id"].clone();
            if self.dice.one_in(3) {
                self.cancel(&task)?;
            }
            answer = self.outcome(&task)?;
        }
        let calm = self.stage.is_calm_since(begun);
        let overlapped = self.stage.vm(name).is_overlapped(call);
        self.stage.count(method, &answer);
        let judged = judge(op, &answer, calm, overlapped, name);
        // What was cut off is still taken back, or goes on: for the others it is at work until that has ended.
        if !calm && answer.status != 200 {
            self.settle(name)?;
        }
        let text = format!("{} {}", answer.status, answer.body);
        let says =
            judged.map_err(|why| format!("{why}: {method} {body}: {answer:?}\n{}", self.stage.vm(name).told()))?;
        self.stage.vm(name).end(call, says, None, &text)?;
        if answer.status == 200 && body.get("client_token").is_some() && self.dice.one_in(3) {
            self.repeat(method, &body, &answer)?;
        }
        Ok(())
    }

    /// Asks what a call would do.
    fn plan(&mut self, name: &str, request: Request) -> Result<(), String> {
        let Request { method, op, mut body } = request;
        if op == Op::Look {
            return Ok(());
        }
        body["plan"] = json!(true);
        let begun = self.stage.disturbances();
        let call = self.stage.vm(name).begin(Op::Look, format!("{method} {body}"));
        let answer = self.call(method, &body);
        let (calm, overlapped) = (self.stage.is_calm_since(begun), self.stage.vm(name).is_overlapped(call));
        self.stage.count("plan", &answer);
        let judged = judge(op, &answer, calm, overlapped, name);
        let says = match judged.map_err(|why| format!("{why}: {method} {body}: {answer:?}"))? {
            Says::Done if answer.body["plan"]["steps"].is_array() => Says::Would(Ok(())),
            Says::Done => return Err(format!("no plan: {method} {body}: {answer:?}")),
            Says::Refused(refusal) => Says::Would(Err(refusal)),
            says => says,
        };
        self.stage.vm(name).end(call, says, Some(op), &format!("{} {}", answer.status, answer.body))
    }

    /// Calls, and calls again when the connection breaks, if there is a token that makes it one call.
    fn send(&self, method: &str, body: &Value) -> Result<Answer, String> {
        loop {
            let answer = self.call(method, body);
            if answer.status != 0 || body.get("client_token").is_none() || self.stage.is_over() {
                return Ok(answer);
            }
            self.stage.count("repeat", &answer);
            self.stage.wait_until_calm()?;
        }
    }

    fn call(&self, method: &str, body: &Value) -> Answer {
        self.stage.lab().server.call(method, body.clone())
    }

    /// The same call under the same token gets the same answer.
    fn repeat(&self, method: &str, body: &Value, first: &Answer) -> Result<(), String> {
        let again = self.send(method, body)?;
        let again = if again.status == 202 { self.outcome(&again.body["task"]["id"])? } else { again };
        let id = |answer: &Answer| answer.body.get("vm").unwrap_or(&answer.body)["id"].clone();
        match again.status == 200 && id(&again) == id(first) {
            true => Ok(()),
            false => Err(format!("repeated, {method} {body} has another answer: {first:?}, {again:?}")),
        }
    }

    /// A task's end, as if it had been waited for.
    fn outcome(&self, task: &Value) -> Result<Answer, String> {
        self.within(&format!("task {task} has ended"), || {
            let answer = self.call("describe-task", &json!({"task": task}));
            if answer.status == 404 {
                return Err(format!("task {task} was accepted and isn't there"));
            }
            let told = &answer.body;
            Ok(match told["state"].as_str() {
                Some("done") => Some(Answer { status: 200, kind: String::new(), body: told["result"].clone() }),
                Some("failed") => {
                    let status = told["error"]["status"].as_u64().unwrap_or(500) as u16;
                    Some(Answer { status, kind: String::new(), body: told["error"].clone() })
                }
                _ => None,
            })
        })
    }

    fn cancel(&self, task: &Value) -> Result<(), String> {
        let begun = self.stage.disturbances();
        let answer = self.call("cancel-task", &json!({"task": task}));
        self.stage.count("cancel-task", &answer);
        let calm = self.stage.is_calm_since(begun);
        match (answer.status, answer.body["code"].as_str()) {
            (200, _) if answer.body["state"] == "failed" || !calm => Ok(()),
            (409, Some("wrong_state")) => Ok(()),
            (0 | 503, _) if !calm => Ok(()),
            _ => Err(format!("cancel-task {task}: {answer:?}")),
        }
    }

    /// Cancels whatever is at work, of whomever.
    fn cancel_any(&mut self) -> Result<(), String> {
        let listed = self.call("list-tasks", &json!({"state": "running", "limit": 10}));
        let tasks = listed.body["tasks"].as_array().cloned().unwrap_or_default();
        if tasks.is_empty() {
            return Ok(());
        }
        let chosen = self.dice.below(tasks.len() as u64) as usize;
        self.cancel(&tasks[chosen]["id"])
    }

    /// Lists the VMs: no row is foreign, none is there twice, and the own ones are in the states that they must have.
    fn look_over(&mut self) -> Result<(), String> {
        let own: Vec<&String> = self.stage.vms.keys().filter(|name| self.is_own(name)).collect();
        let begun = self.stage.disturbances();
        let calls: Vec<u64> =
            own.iter().map(|name| self.stage.vm(name).begin(Op::Look, "list-vms".to_owned())).collect();
        let answer = self.call("list-vms", &json!({"limit": 1000}));
        let calm = self.stage.is_calm_since(begun);
        self.stage.count("list-vms", &answer);
        let rows = answer.body["vms"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
        names.sort_unstable();
        let known = |row: &Value| row["managed"] == true && self.stage.vms.keys().any(|name| row["name"] == **name);
        let sound = answer.status == 200 && rows.iter().all(known) && names.windows(2).all(|two| two[0] != two[1]);
        let cut_off = answer.status == 0 && !calm;
        if !sound && !cut_off {
            return Err(format!("list-vms: {answer:?}"));
        }
        for (name, call) in own.into_iter().zip(calls) {
            let says = match rows.iter().find(|row| row["name"] == **name) {
                _ if answer.status != 200 => Says::Unknown,
                None => Says::Seen(State::Absent),
                Some(row) => seen(row, calm)?,
            };
            self.stage.vm(name).end(call, says, None, "list-vms")?;
        }
        Ok(())
    }

    /// Waits until nothing of an earlier disturbance is at work on a VM: no task, no deletion that goes on by its mark.
    fn settle(&self, name: &str) -> Result<(), String> {
        self.stage.wait_until_calm()?;
        for task in self.open_tasks(name)? {
            self.outcome(&task)?;
        }
        self.within(&format!("{name} is settled"), || {
            let answer = self.call("describe-vm", &json!({"vm": name}));
            let settled = answer.body["state"].as_str().and_then(State::of).is_some() && answer.body["stale"] == false;
            Ok((answer.status == 404 || settled).then_some(()))
        })
    }

    fn open_tasks(&self, name: &str) -> Result<Vec<Value>, String> {
        let mut open = Vec::new();
        for state in ["running", "unwinding"] {
            let listed = self.within("tasks are listed", || {
                let answer = self.call("list-tasks", &json!({"state": state, "limit": 1000}));
                Ok(Some(answer).filter(|answer| answer.status == 200))
            })?;
            let tasks = listed.body["tasks"].as_array().cloned().unwrap_or_default();
            let about =
                tasks.into_iter().filter(|task| task["target"]["name"] == name && task["method"] != "cancel-task");
            open.extend(about.map(|task| task["id"].clone()));
        }
        Ok(open)
    }

    fn within<T>(&self, what: &str, mut look: impl FnMut() -> Result<Option<T>, String>) -> Result<T, String> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if self.stage.is_over() {
                return Err(format!("{}: somebody else has failed", super::GIVEN_UP));
            }
            match look()? {
                Some(value) => return Ok(value),
                None => std::thread::sleep(LOOK),
            }
        }
        Err(format!("not within {PATIENCE:?}: {what}"))
    }
}

/// What an answer says. An error is an answer that must not be, whatever the VM's state.
fn judge(op: Op, answer: &Answer, calm: bool, overlapped: bool, name: &str) -> Result<Says, String> {
    let (code, detail) = (answer.body["code"].as_str(), answer.body["detail"].as_str().unwrap_or_default());
    let creates = matches!(op, Op::Create { .. });
    let in_doubt = |why: &str| if calm { Err(why.to_owned()) } else { Ok(Says::Unknown) };
    match (answer.status, code) {
        (0, _) => in_doubt("the connection broke, and nobody has killed the server"),
        (200, _) if op == Op::Look => seen(&answer.body, calm),
        (200, _) if answer.body.get("plan").is_some() => Ok(Says::Done),
        (200, _) => reply(op, &answer.body, calm, name).map(|()| Says::Done),
        (404, Some("not_found")) if op == Op::Look => Ok(Says::Seen(State::Absent)),
        (404, Some("not_found")) if !creates => Ok(Says::Refused(Refusal::NotFound)),
        // Its name may be claimed by a call that comes to nothing.
        (409, Some("already_exists")) if overlapped => Ok(Says::Nothing),
        (409, Some("already_exists")) if creates => Ok(Says::Refused(Refusal::Exists)),
        (409, Some("wrong_state")) if detail.contains("cancelled") || detail.contains("took this one's place") => {
            // The guest may have heard the power button.
            Ok(if op == (Op::Stop { force: false }) { Says::Unknown } else { Says::Nothing })
        }
        (409, Some("wrong_state")) if detail.contains("no domain") => Err("a VM without a domain".to_owned()),
        (409, Some("wrong_state")) if answer.body["task"].is_string() && !calm => Ok(Says::Unknown),
        (409, Some("wrong_state")) if !creates => Ok(Says::Refused(Refusal::WrongState)),
        (409, Some("busy")) if overlapped => Ok(Says::Nothing),
        (409, Some("busy")) => in_doubt("busy, and nobody else is at work on it"),
        (409, Some("no_capacity")) if creates || matches!(op, Op::Start | Op::Modify) => Ok(Says::Nothing),
        // The address is still the VM's before it, or about to be somebody's of the same name.
        (400, Some("invalid")) if creates && overlapped => Ok(Says::Nothing),
        (503 | 504 | 422, Some("node_unavailable" | "timeout" | "unsupported")) => {
            in_doubt("the node failed, and nobody has disturbed it")
        }
        _ => Err("an answer that must not be".to_owned()),
    }
}

/// What a row says of its VM's state, when nothing disturbs the node.
fn seen(row: &Value, calm: bool) -> Result<Says, String> {
    match row["state"].as_str().and_then(State::of) {
        Some(state) if calm && row["stale"] == false => Ok(Says::Seen(state)),
        // At work, or not looked at yet: the others' calls are no business of a row.
        _ => Ok(Says::Unknown),
    }
}

/// A reply tells of the VM as the call has made it: its lock is held until then.
fn reply(op: Op, body: &Value, calm: bool, name: &str) -> Result<(), String> {
    let vm = body.get("vm").unwrap_or(body);
    if vm["name"] != name {
        return Err("the reply is about another VM".to_owned());
    }
    let is = match op {
        Op::Create { start: true } | Op::Start | Op::Reboot | Op::Resume => "running",
        Op::Create { start: false } | Op::Stop { .. } => "shutoff",
        Op::Pause => "paused",
        Op::Modify | Op::Delete | Op::Look => return Ok(()),
    };
    match vm["state"] == is || !calm {
        true => Ok(()),
        false => Err(format!("the reply's state is not {is}")),
    }
}
