//! `vmyard events`: what has happened, and what happens.

use crate::{
    client::{Client, Server, to_json},
    complete,
    failure::Failure,
    human,
    lists::{self, Kind},
    output::{Output, print_on},
    table::Cell::Field,
};
use api::{
    Code, Time,
    event::{Event, EventKind, ListEvents},
};
use clap_complete::ArgValueCompleter;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    time::Duration,
};

/// The server gives a sign of life every 15 s.
const SILENCE: Duration = Duration::from_secs(45);
/// The pauses between two attempts to reach a server that is away: the first one and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// How many events are listed when nobody says how many.
const LISTED: u32 = 100;

/// `vmyard events`
#[derive(clap::Args)]
pub struct Args {
    /// Go on with what happens, line by line, from now on; with -o json a line of JSON each
    #[arg(short, long, conflicts_with_all = ["last", "limit"])]
    follow: bool,
    /// Only events about this VM
    #[arg(long, add = ArgValueCompleter::new(complete::vms))]
    vm: Option<String>,
    /// Only events on this node
    #[arg(long, add = ArgValueCompleter::new(complete::nodes))]
    node: Option<String>,
    /// Only events of these kinds, like vm-state,task-failed
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = kind)]
    kind: Vec<EventKind>,
    /// Only the last while: 90s, 15m, 1h, 7d
    #[arg(long, value_name = "TIME", value_parser = human::length)]
    last: Option<i64>,
    /// With --follow: begin after the event of this id
    #[arg(long, value_name = "ID", requires = "follow")]
    after: Option<u64>,
    #[command(flatten)]
    limit: lists::Limit,
}

/// Reads a kind of events.
pub fn kind(text: &str) -> Result<EventKind, String> {
    EventKind::parse(text).ok_or_else(|| format!("must be one of {}", EventKind::ALL.map(EventKind::as_str).join(", ")))
}

const KIND: Kind = Kind {
    plural: "events",
    list: ("list-events", "events"),
    // There is no more to show of one.
    show: ("", ""),
    columns: &[
        ("ID", Field("id")),
        ("AT", Field("at")),
        ("KIND", Field("kind")),
        ("NODE", Field("node")),
        ("MESSAGE", Field("message")),
    ],
    wide: &[("VM", Field("vm")), ("TASK", Field("task"))],
};

/// Lists events, or follows them.
pub fn run(server: &Server, output: Output, args: Args) -> Result<(), Failure> {
    if args.follow {
        return follow(&server.connect_within(SILENCE)?, output, args);
    }
    let since = args.last.map(|seconds| Time(Time::now().0.saturating_sub(seconds.saturating_mul(1000))));
    let request = ListEvents { vm: args.vm, node: args.node, kinds: args.kind, since, ..ListEvents::default() };
    let limit = Some(args.limit.limit.unwrap_or(LISTED));
    lists::list(&server.connect()?, output, &KIND, to_json(&request)?, limit)
}

/// Prints events as they happen. A server that goes away is waited for, and asked for what happened meanwhile.
fn follow(client: &Client, output: Output, mut args: Args) -> Result<(), Failure> {
    let mut pause = PAUSES.0;
    let mut begun = false;
    loop {
        match read(client, output, &mut args, &mut begun) {
            Ok(true) => pause = PAUSES.0,
            Ok(false) => return Ok(()),
            Err(Failure::Unreachable(why)) if begun => eprintln!("warning: {why}"),
            // One that starts or stops.
            Err(Failure::Problem(problem)) if begun && problem.code == Code::NodeUnavailable => {
                eprintln!("warning: {}", problem.detail);
            }
            Err(failure) => return Err(failure),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Reads a stream to its end. Says whether to go on with another.
fn read(client: &Client, output: Output, args: &mut Args, begun: &mut bool) -> Result<bool, Failure> {
    let mut stream = BufReader::new(client.get(&path(args)?)?);
    *begun = true;
    let (mut kind, mut data, mut line) = (String::new(), String::new(), String::new());
    loop {
        line.clear();
        // The connection broke off, or the server has ended it.
        if stream.read_line(&mut line).unwrap_or(0) == 0 {
            return Ok(true);
        }
        match line.trim_end().split_once(':') {
            Some(("event", rest)) => rest.trim_start().clone_into(&mut kind),
            Some(("data", rest)) => data.push_str(rest.trim_start()),
            // An empty line ends an event.
            None if line.trim_end().is_empty() => {
                if !data.is_empty() && !show(&kind, &data, output, args)? {
                    return Ok(false);
                }
                kind.clear();
                data.clear();
            }
            _ => {}
        }
    }
}

fn path(args: &Args) -> Result<String, Failure> {
    let kinds: Vec<_> = args.kind.iter().map(|kind| kind.as_str()).collect();
    let all = [
        ("vm", args.vm.clone()),
        ("node", args.node.clone()),
        ("kinds", Some(kinds.join(",")).filter(|kinds| !kinds.is_empty())),
        ("after", args.after.map(|after| after.to_string())),
    ];
    let given = all.into_iter().filter_map(|(name, value)| Some((name, value?)));
    // Only what comes behind the host is of interest.
    let url = reqwest::Url::parse_with_params("http://server/api/events", given)
        .map_err(|error| Failure::Usage(format!("ask for events: {error}")))?;
    Ok(format!("{}?{}", url.path(), url.query().unwrap_or_default()))
}

/// Prints an event. Says whether whoever reads may want more.
fn show(kind: &str, data: &str, output: Output, args: &mut Args) -> Result<bool, Failure> {
    if kind == "gap" {
        let gap: Value = serde_json::from_str(data).unwrap_or_default();
        eprintln!("warning: events after {} are no longer kept; what follows begins at {}", gap["after"], gap["first"]);
        return Ok(true);
    }
    let event: Event = serde_json::from_str(data)
        .map_err(|error| Failure::Unreachable(format!("an event can't be read ({error}): {data}")))?;
    args.after = Some(event.id);
    match output.is_data() {
        true => print_on(data),
        false => {
            let message: String = event.message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            print_on(&format!("{} {:<14} {message}", event.at, event.kind.as_str()))
        }
    }
}
