//! Names and addresses that calls at work have claimed: of several calls that want the same one, one goes on.

use crate::{Error, Result, index::Index, store::name_key, sync::lock};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};
use uuid::Uuid;

/// What is claimed. Cheap to clone.
#[derive(Clone, Default)]
pub struct Claims {
    claimed: Arc<Mutex<HashSet<String>>>,
}

/// A name or an address that is kept until this is dropped.
pub struct Claim {
    claims: Claims,
    key: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.claims.claimed).remove(&self.key);
    }
}

impl Claims {
    /// Keeps a name for a VM that is about to be made, unless a VM has it, ours or not, or is about to.
    pub fn name(&self, index: &Index, name: &str) -> Result<Claim> {
        self.name_beside(index, name, None)
    }

    /// The same for a VM that is about to be called so, and may have been before.
    pub fn new_name(&self, index: &Index, name: &str, vm: Uuid) -> Result<Claim> {
        self.name_beside(index, name, Some(vm))
    }

    fn name_beside(&self, index: &Index, name: &str, vm: Option<Uuid>) -> Result<Claim> {
        // The claim comes first. Who had it before has put its record in by now, so that one of the two is seen.
        match self.claim(&name_key(name)) {
            Some(claim) if !index.has_name(name, vm) => Ok(claim),
            _ => Err(Error::exists("VM", name)),
        }
    }

    /// Keeps a name or an address for whoever holds the claim.
    pub fn claim(&self, key: &str) -> Option<Claim> {
        let fresh = lock(&self.claimed).insert(key.to_owned());
        fresh.then(|| Claim { claims: self.clone(), key: key.to_owned() })
    }

    /// A copy that is nobody else's, for a plan.
    pub fn detached(&self) -> Claims {
        Claims { claimed: Arc::new(Mutex::new(lock(&self.claimed).clone())) }
    }
}
