//! Who works on what. Two locks an object, held by tasks, so that what can't disturb one another runs side by side.

use crate::{Error, Result, sync::lock};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Which part of an object is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lock {
    /// Whether it runs, and its definition.
    Power,
    /// Its disks.
    Disk,
}

/// All locks. Cheap to clone.
#[derive(Clone, Default)]
pub struct Locks {
    holders: Arc<Mutex<HashMap<(Uuid, Lock), Holder>>>,
    /// Whether these are a plan's own copy.
    detached: bool,
}

#[derive(Clone)]
struct Holder {
    task: Uuid,
    method: &'static str,
    /// Cancelled when a call that goes before this one wants its place; only for those that merely wait for a guest.
    superseded: Option<CancellationToken>,
}

/// A lock that is held until this is dropped.
pub struct Held {
    locks: Locks,
    key: (Uuid, Lock),
    task: Uuid,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut holders = lock(&self.locks.holders);
        if holders.get(&self.key).is_some_and(|holder| holder.task == self.task) {
            holders.remove(&self.key);
        }
    }
}

impl Locks {
    /// Takes locks of an object for a task, all or none. `busy` names the task that has one of them.
    pub fn take(
        &self,
        object: Uuid,
        name: &str,
        wanted: &[Lock],
        task: Uuid,
        method: &'static str,
    ) -> Result<Vec<Held>> {
        self.take_waiting(object, name, wanted, task, method, None)
    }

    /// Like [`Locks::take`], for a task that waits for a guest: `superseded` is cancelled when a forced call wants the
    /// place.
    pub fn take_waiting(
        &self,
        object: Uuid,
        name: &str,
        wanted: &[Lock],
        task: Uuid,
        method: &'static str,
        superseded: Option<CancellationToken>,
    ) -> Result<Vec<Held>> {
        let mut holders = lock(&self.holders);
        for part in wanted {
            if let Some(holder) = holders.get(&(object, *part)) {
                return Err(Error::Busy {
                    detail: format!("{} is at work on {name}", holder.method),
                    task: Some(holder.task),
                });
            }
        }
        let take = |part: &Lock| {
            let key = (object, *part);
            holders.insert(key, Holder { task, method, superseded: superseded.clone() });
            Held { locks: self.clone(), key, task }
        };
        Ok(wanted.iter().map(take).collect())
    }

    /// Ends the wait of the task that holds this lock, where it merely waits for a guest; returns whether there was one.
    pub fn supersede(&self, object: Uuid, part: Lock) -> bool {
        let mut holders = lock(&self.holders);
        let Some(waiting) = holders.get(&(object, part)).and_then(|holder| holder.superseded.clone()) else {
            return false;
        };
        if self.detached {
            holders.remove(&(object, part));
        } else {
            waiting.cancel();
        }
        true
    }

    /// The method that is at work on an object.
    pub fn method_on(&self, object: Uuid) -> Option<&'static str> {
        let holders = lock(&self.holders);
        let holder = [Lock::Power, Lock::Disk].into_iter().find_map(|part| holders.get(&(object, part)));
        holder.map(|holder| holder.method)
    }

    /// Whether somebody works on an object.
    pub fn are_held(&self, object: Uuid) -> bool {
        let holders = lock(&self.holders);
        [Lock::Power, Lock::Disk].into_iter().any(|part| holders.contains_key(&(object, part)))
    }

    /// A copy that is nobody else's, for a plan: what is taken in it is free for others, and nobody is superseded.
    pub fn detached(&self) -> Locks {
        Locks { holders: Arc::new(Mutex::new(lock(&self.holders).clone())), detached: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_none() {
        let locks = Locks::default();
        let (vm, first, second) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
        let power = locks.take(vm, "web", &[Lock::Power], first, "start-vm").unwrap();
        let error = locks.take(vm, "web", &[Lock::Disk, Lock::Power], second, "delete-vm").err().unwrap();
        assert!(matches!(error, Error::Busy { task: Some(task), .. } if task == first));
        drop(locks.take(vm, "web", &[Lock::Disk], second, "attach-volume").unwrap());
        drop(power);
        locks.take(vm, "web", &[Lock::Disk, Lock::Power], second, "delete-vm").unwrap();
    }

    #[test]
    fn a_plan_disturbs_nobody() {
        let locks = Locks::default();
        let (vm, task) = (Uuid::now_v7(), Uuid::now_v7());
        let token = CancellationToken::new();
        let _held = locks.take_waiting(vm, "web", &[Lock::Power], task, "stop-vm", Some(token.clone())).unwrap();
        let plan = locks.detached();
        assert!(plan.take(vm, "web", &[Lock::Power], Uuid::now_v7(), "stop-vm").is_err());
        assert!(plan.supersede(vm, Lock::Power));
        let planned = plan.take(vm, "web", &[Lock::Power, Lock::Disk], Uuid::now_v7(), "stop-vm").unwrap();
        assert!(!token.is_cancelled());
        locks.take(vm, "web", &[Lock::Disk], Uuid::now_v7(), "attach-volume").unwrap();
        drop(planned);
        assert!(locks.take(vm, "web", &[Lock::Power], Uuid::now_v7(), "start-vm").is_err());
    }

    #[test]
    fn only_a_wait_is_superseded() {
        let locks = Locks::default();
        let (vm, task) = (Uuid::now_v7(), Uuid::now_v7());
        let token = CancellationToken::new();
        let held = locks.take_waiting(vm, "web", &[Lock::Power], task, "stop-vm", Some(token.clone())).unwrap();
        assert!(locks.supersede(vm, Lock::Power));
        assert!(token.is_cancelled());
        drop(held);
        let _held = locks.take(vm, "web", &[Lock::Power], task, "start-vm").unwrap();
        assert!(!locks.supersede(vm, Lock::Power));
    }
}
