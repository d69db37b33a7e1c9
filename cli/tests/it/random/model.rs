//! What a VM may be, given the answers so far.
//!
//! Several clients call at once, so the model keeps *worlds*: each is a state that the VM may have, and which of the calls
//! at work have had their effect in it. When a call is answered, the worlds that don't go with the answer are dropped.
//! When none is left, no order of the calls explains the answers.

use std::collections::{BTreeMap, BTreeSet};

/// How many lines of a VM's history are told.
const TOLD: usize = 40;

/// What a VM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Absent,
    Off,
    Running,
    Paused,
}

impl State {
    /// The state of this name on the wire, once nothing is at work on it.
    pub fn of(name: &str) -> Option<State> {
        match name {
            "shutoff" => Some(State::Off),
            "running" => Some(State::Running),
            "paused" => Some(State::Paused),
            _ => None,
        }
    }
}

/// What is done to a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Create {
        start: bool,
    },
    Start,
    Stop {
        force: bool,
    },
    Reboot,
    Pause,
    Resume,
    Modify,
    Delete,
    /// Any call that changes nothing.
    Look,
}

/// Why an operation is refused for a VM's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    NotFound,
    Exists,
    WrongState,
}

impl Op {
    /// What it makes of a VM, or why it can't.
    pub fn on(self, state: State) -> Result<State, Refusal> {
        match (self, state) {
            (Op::Look, _) => Ok(state),
            (Op::Create { start: true }, State::Absent) => Ok(State::Running),
            (Op::Create { start: false }, State::Absent) => Ok(State::Off),
            (Op::Create { .. }, _) => Err(Refusal::Exists),
            (_, State::Absent) => Err(Refusal::NotFound),
            (Op::Start, State::Off) => Ok(State::Running),
            (Op::Stop { .. }, State::Running) | (Op::Stop { force: true }, State::Paused) => Ok(State::Off),
            (Op::Reboot, State::Running) => Ok(State::Running),
            (Op::Pause, State::Running) => Ok(State::Paused),
            (Op::Resume, State::Paused) => Ok(State::Running),
            (Op::Modify, _) => Ok(state),
            (Op::Delete, State::Off) => Ok(State::Absent),
            _ => Err(Refusal::WrongState),
        }
    }
}

/// What an answer says of the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// It was done.
    Done,
    /// It was not done, since the VM's state was wrong for it.
    Refused(Refusal),
    /// It was not done, for a reason that is not the VM's state.
    Nothing,
    /// It was done or not.
    Unknown,
    /// The state.
    Seen(State),
    /// It would be done, or refused (a plan).
    Would(Result<(), Refusal>),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    state: State,
    took: BTreeMap<u64, Result<(), Refusal>>,
}

/// A call at work.
pub struct Call {
    op: Op,
    /// Whether another one that may change something was at work at any time of its own.
    overlapped: bool,
}

/// A VM's name: what is there may be deleted, and made again.
pub struct Vm {
    name: String,
    worlds: BTreeSet<World>,
    at_work: BTreeMap<u64, Call>,
    next: u64,
    history: Vec<String>,
}

impl Vm {
    /// There is no VM of this name.
    pub fn new(name: &str) -> Vm {
        let worlds = BTreeSet::from([World { state: State::Absent, took: BTreeMap::new() }]);
        Vm { name: name.to_owned(), worlds, at_work: BTreeMap::new(), next: 0, history: Vec::new() }
    }

    /// A call begins. With [`Op::Look`] when it changes nothing.
    pub fn begin(&mut self, op: Op, text: String) -> u64 {
        self.next += 1;
        let mutates = op != Op::Look;
        let overlapped = self.at_work.values().any(|call| call.op != Op::Look);
        if mutates {
            self.at_work.values_mut().for_each(|call| call.overlapped = true);
        }
        self.at_work.insert(self.next, Call { op, overlapped });
        self.history.push(format!("{} -> {text}", self.next));
        self.next
    }

    /// Whether another call that may change something was at work beside this one.
    pub fn is_overlapped(&self, call: u64) -> bool {
        self.at_work.get(&call).is_none_or(|call| call.overlapped)
    }

    /// A call was answered. An error says that no order of the calls explains it. `planned` is what a plan was for.
    pub fn end(&mut self, id: u64, says: Says, planned: Option<Op>, text: &str) -> Result<(), String> {
        self.spread();
        let before = self.states();
        let Some(call) = self.at_work.remove(&id) else { return Err(format!("{}: no call {id}", self.name)) };
        let fits = |world: &World| match (says, world.took.get(&id)) {
            (Says::Seen(state), _) => call.overlapped || world.state == state,
            (Says::Would(told), _) => {
                let would = planned.map(|op| op.on(world.state).map(|_| ()));
                call.overlapped || would.is_none_or(|would| would == told)
            }
            (Says::Done, took) => took == Some(&Ok(())),
            (Says::Refused(refusal), took) => took == Some(&Err(refusal)),
            (Says::Nothing, took) => took != Some(&Ok(())),
            (Says::Unknown, _) => true,
        };
        let worlds = std::mem::take(&mut self.worlds).into_iter().filter(fits);
        self.worlds = worlds
            .map(|mut world| {
                world.took.remove(&id);
                world
            })
            .collect();
        self.history.push(format!("{id} <- {text}: {says:?}; {:?}", self.states()));
        match self.worlds.is_empty() {
            true => Err(format!("{} can't be so: it was one of {before:?}\n{}", self.name, self.told())),
            false => Ok(()),
        }
    }

    /// The states that it may have.
    pub fn states(&self) -> BTreeSet<State> {
        self.worlds.iter().map(|world| world.state).collect()
    }

    /// The last lines of its history.
    pub fn told(&self) -> String {
        self.history[self.history.len().saturating_sub(TOLD)..].join("\n")
    }

    /// Adds the worlds in which further calls at work have had their effect.
    fn spread(&mut self) {
        let mut fresh: Vec<World> = self.worlds.iter().cloned().collect();
        while let Some(world) = fresh.pop() {
            let open = self.at_work.iter().filter(|(id, call)| call.op != Op::Look && !world.took.contains_key(id));
            for (id, call) in open {
                let outcome = call.op.on(world.state);
                let mut next = world.clone();
                next.state = outcome.unwrap_or(world.state);
                next.took.insert(*id, outcome.map(|_| ()));
                if self.worlds.insert(next.clone()) {
                    fresh.push(next);
                }
            }
        }
    }
}

#[test]
fn the_model_tells_what_cannot_be() {
    let mut vm = Vm::new("web");
    let mut call = |op, says| {
        let id = vm.begin(op, String::new());
        vm.end(id, says, None, "").map(|()| vm.states())
    };
    assert_eq!(call(Op::Create { start: false }, Says::Done).unwrap(), [State::Off].into());
    assert_eq!(call(Op::Start, Says::Unknown).unwrap(), [State::Off, State::Running].into());
    assert_eq!(call(Op::Pause, Says::Refused(Refusal::WrongState)).unwrap(), [State::Off].into());
    assert!(call(Op::Stop { force: true }, Says::Done).is_err());

    // Of two creations at once one is refused, and one must be done.
    let mut vm = Vm::new("web");
    let create = Op::Create { start: true };
    let (first, second) = (vm.begin(create, String::new()), vm.begin(create, String::new()));
    vm.end(second, Says::Refused(Refusal::Exists), None, "").unwrap();
    assert!(vm.end(first, Says::Refused(Refusal::Exists), None, "").is_err());
}
