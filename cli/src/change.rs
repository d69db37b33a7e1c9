//! Calls that change something: waited for, begun only (`--no-wait`), or only planned (`--plan`).

use crate::{
    client::{Client, from_json, to_json},
    failure::Failure,
    follow, outcome,
    output::Output,
    plan,
};
use api::{Rpc, plan::Planned};
use serde_json::{Value, json};
use std::io::IsTerminal;

/// What every verb that changes something takes.
#[derive(clap::Args)]
pub struct Change {
    /// Don't wait for the end: print the task's id at once
    #[arg(long, conflicts_with = "plan")]
    no_wait: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    plan: bool,
}

impl Change {
    /// Calls the method and prints what came of it.
    pub fn run<R: Rpc>(&self, client: &Client, output: Output, request: &R) -> Result<(), Failure> {
        match self.call(client, output, request)? {
            Some(reply) => output.answer(&reply, || outcome::text(R::NAME, &reply)),
            None => Ok(()),
        }
    }

    /// Calls the method. What was only planned or begun is printed, and there is no reply.
    pub fn call<R: Rpc>(&self, client: &Client, output: Output, request: &R) -> Result<Option<Value>, Failure> {
        let mut body = to_json(request)?;
        if self.plan {
            body["plan"] = json!(true);
            let reply = client.call_json(R::NAME, &body)?;
            let planned: Planned = from_json(reply.clone())?;
            return output.answer(&reply, || plan::text(&planned.plan)).map(|()| None);
        }
        if self.no_wait {
            body["wait"] = json!(false);
            let answer = client.send(R::NAME, &body)?;
            let task = answer.task()?;
            return output.answer(&answer.body, || task.to_string()).map(|()| None);
        }
        // Somebody who looks on wants to see how it goes on; nobody else needs more than one request.
        let reply = match std::io::stderr().is_terminal() {
            true => follow::call(client, R::NAME, body)?,
            false => client.call_json(R::NAME, &body)?,
        };
        Ok(Some(reply))
    }
}
