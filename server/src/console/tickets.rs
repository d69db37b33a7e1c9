//! Tickets: what lets somebody into a console once, within a minute. They are in memory, as hashes; a restart voids them.

use super::TICKET;
use crate::{
    Error, Result,
    auth::{self, Caller, Secret},
    sync::lock,
};
use api::Time;
use std::{collections::HashMap, sync::Mutex, time::Instant};
use uuid::Uuid;

/// The most tickets that wait for their clients.
const TICKETS_MAX: usize = 10_000;

/// What a ticket lets in to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The screen.
    Vnc,
    /// The serial line.
    Serial(Serial),
}

/// How a serial line is to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial {
    /// Only watch.
    pub read_only: bool,
    /// Type, though somebody else does.
    pub take_over: bool,
    /// Wait for the VM's start.
    pub wait_for_start: bool,
    /// Cut who has the line outside of Vmyard.
    pub force: bool,
    /// The recording to make.
    pub record: Option<Uuid>,
}

/// A ticket that was redeemed.
#[derive(Debug)]
pub struct Ticket {
    /// The VM.
    pub vm: Uuid,
    /// Who asked for it.
    pub caller: Caller,
    /// For what.
    pub purpose: Purpose,
    until: Instant,
}

/// The tickets that wait for their clients, by their hashes.
#[derive(Default)]
pub struct Tickets {
    waiting: Mutex<HashMap<String, Ticket>>,
}

impl Tickets {
    /// A new one: its secret, and until when it lets somebody in.
    pub fn issue(&self, vm: Uuid, caller: &Caller, purpose: Purpose) -> Result<(String, Time)> {
        self.issue_at(vm, caller, purpose, Instant::now())
    }

    fn issue_at(&self, vm: Uuid, caller: &Caller, purpose: Purpose, now: Instant) -> Result<(String, Time)> {
        let (secret, hash) = Secret::Ticket.generate()?;
        let mut waiting = lock(&self.waiting);
        waiting.retain(|_, ticket| ticket.until > now);
        if waiting.len() >= TICKETS_MAX {
            return Err(Error::NoCapacity(format!(
                "{TICKETS_MAX} tickets for consoles wait for their clients; they end within {} s",
                TICKET.as_secs()
            )));
        }
        let ticket = Ticket { vm, caller: caller.clone(), purpose, until: now + TICKET };
        waiting.insert(hash, ticket);
        let lasts_ms = i64::try_from(TICKET.as_millis()).unwrap_or(i64::MAX);
        Ok((secret, Time(Time::now().0 + lasts_ms)))
    }

    /// Takes a ticket for this VM. Whatever comes of it, it works no second time.
    pub fn redeem(&self, secret: &str, vm: Uuid) -> Result<Ticket> {
        self.redeem_at(secret, vm, Instant::now())
    }

    fn redeem_at(&self, secret: &str, vm: Uuid, now: Instant) -> Result<Ticket> {
        let ticket = lock(&self.waiting).remove(&auth::hash(secret));
        let ticket = ticket.filter(|ticket| ticket.until > now).ok_or(Error::Unauthenticated(
            "this ticket is not known: each lets one client in, within 60 seconds; ask for another",
        ))?;
        if ticket.vm != vm {
            return Err(Error::Unauthenticated("this ticket is for another VM; ask for another"));
        }
        Ok(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_works_once_for_its_vm_and_in_time() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let (vm, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let issue = || tickets.issue_at(vm, &Caller::anyone(), Purpose::Vnc, now).unwrap().0;
        let ticket = issue();
        assert_eq!(tickets.redeem_at(&ticket, vm, now).unwrap().purpose, Purpose::Vnc);
        assert!(tickets.redeem_at(&ticket, vm, now).is_err());
        let ticket = issue();
        assert!(tickets.redeem_at(&ticket, other, now).is_err());
        assert!(tickets.redeem_at(&ticket, vm, now).is_err());
        assert!(tickets.redeem_at(&issue(), vm, now + TICKET).is_err());
        assert!(tickets.redeem_at(&issue(), vm, now + TICKET - Duration::from_millis(1)).is_ok());
        assert!(tickets.redeem_at("", vm, now).is_err());
    }
}
