//! Deleting what is left over. It goes forward, one thing a step, and each step may be repeated; what a call that was cut off has
//! not deleted is an orphan as before.

use super::{Candidate, candidates, judge::Place, nodes, settle};
use crate::{
    App, Context, Error, Result, observe, problem,
    store::Made,
    task::{Lock, Outline, Task, Work},
};
use api::{
    Rpc,
    orphan::{CleanOrphans, CleanedOrphans, KeptOrphan, OrphanKind},
    task::Target,
};
use hypervisor::ErrorKind;
use std::collections::HashMap;
use uuid::Uuid;

/// The most that one call deletes.
const AT_ONCE: usize = 1000;

/// `clean-orphans`
pub async fn clean(context: Context, request: CleanOrphans) -> Result<Work<CleanedOrphans>> {
    let app = &context.app;
    let named = request.node.as_deref().map(|node| app.node(node)).transpose()?;
    let (candidates, unreachable) = candidates(app, nodes(app, request.node.as_deref())?).await?;
    let (chosen, mut kept) = choose(&request, candidates);
    let (mut going, staying) = settle(chosen);
    kept.extend(staying.iter().map(|one| stays(one, one.orphan.why_not.clone().unwrap_or_default())));
    let remaining = going.len().saturating_sub(AT_ONCE) as u64;
    going.truncate(AT_ONCE);

    let target = match &named {
        Some(node) => {
            let id = node.host_uuid().unwrap_or_default();
            Target { kind: "node".to_owned(), id, name: node.name().to_owned() }
        }
        None => Target { kind: "orphans".to_owned(), id: Uuid::nil(), name: "of all nodes".to_owned() },
    };
    let steps: Vec<_> = going.iter().map(step).collect();
    let outline = Outline::of(&steps).deletes(going.iter().map(|one| one.orphan.id.clone()));
    let outline = match &named {
        Some(node) => outline.on(node),
        None => outline,
    };
    let reply = CleanedOrphans { deleted: Vec::new(), kept, freed_bytes: 0, remaining, unreachable };
    Ok(Work::new(target, Vec::new(), outline, move |task| delete_all(task, going, reply)))
}

/// What the request means, and what it names in vain.
fn choose(request: &CleanOrphans, candidates: Vec<Candidate>) -> (Vec<Candidate>, Vec<KeptOrphan>) {
    let is_meant = |one: &Candidate| {
        let named = |names: &Vec<String>| names.iter().any(|name| is_named(name, one));
        request.kind.is_none_or(|kind| one.orphan.kind == kind) && request.orphans.as_ref().is_none_or(named)
    };
    let chosen: Vec<Candidate> = candidates.into_iter().filter(is_meant).collect();
    let mut in_vain: Vec<String> = request.orphans.iter().flatten().cloned().collect();
    in_vain.retain(|name| !chosen.iter().any(|one| is_named(name, one)));
    in_vain.sort();
    in_vain.dedup();
    let why = "there is no such orphan (list-orphans): it is gone, or something of Vmyard's refers to it";
    let kept = in_vain.into_iter().map(|id| KeptOrphan { id, node: None, why: why.to_owned() });
    (chosen, kept.collect())
}

fn is_named(name: &str, one: &Candidate) -> bool {
    match one.place {
        Place::Domain(id) => Uuid::try_parse(name).is_ok_and(|named| named == id),
        Place::File { .. } => name == one.orphan.id,
    }
}

fn step(one: &Candidate) -> &'static str {
    match one.place {
        Place::Domain(_) => "undefine-domain",
        Place::File { .. } => "delete-file",
    }
}

fn stays(one: &Candidate, why: String) -> KeptOrphan {
    KeptOrphan { id: one.orphan.id.clone(), node: Some(one.orphan.node.clone()), why }
}

/// Deletes one after the other, by a step each. One that can't be deleted keeps no other.
async fn delete_all(task: Task, going: Vec<Candidate>, mut reply: CleanedOrphans) -> Result<CleanedOrphans> {
    // A node that went away isn't waited for again and again.
    let mut away: HashMap<String, String> = HashMap::new();
    for one in going {
        if let Some(why) = away.get(&one.orphan.node) {
            reply.kept.push(stays(&one, why.clone()));
            continue;
        }
        // That one can't be deleted is no failure of the step: the next one comes.
        match task.step(step(&one), None, async { Ok(delete(&task.app, task.id, &one).await) }).await? {
            Ok(()) => {
                reply.freed_bytes += one.orphan.size_bytes.unwrap_or(0);
                reply.deleted.push(one.orphan);
            }
            Err(error) => {
                let why = problem::to_wire(&error, None, Some(task.id)).detail;
                if matches!(&error, Error::Node(error) if error.kind == ErrorKind::Unavailable) {
                    away.insert(one.orphan.node.clone(), why.clone());
                }
                reply.kept.push(stays(&one, why));
            }
        }
    }
    Ok(reply)
}

/// Deletes one, after a last look at its node: something may refer to it by now.
async fn delete(app: &App, task: Uuid, one: &Candidate) -> Result<()> {
    let node = app.node(&one.orphan.node)?;
    let locks = [Lock::Power, Lock::Disk];
    let _held = app.locks.take(one.lock, &one.orphan.id, &locks, task, CleanOrphans::NAME)?;
    let doing = "look at what is to be deleted";
    node.wait_until_up(doing).await?;
    let (now, unreachable) = candidates(app, vec![node.clone()]).await?;
    if !unreachable.is_empty() {
        return Err(node.unavailable(doing, "it does not answer").into());
    }
    let Some(now) = now.into_iter().find(|now| now.place == one.place) else {
        return Err(Error::WrongState {
            detail: "it is no orphan any more: it is gone, or something of Vmyard's refers to it".to_owned(),
            hint: None,
        });
    };
    if let Some(why) = now.why_it_stays() {
        return Err(Error::InUse(why));
    }
    let gone = match &one.place {
        Place::File { pool, file } => {
            node.delete_volume(*pool, file).await?;
            // Of what belongs to a VM in the pool of the seeds there may be more; the last look at the node forgets that.
            (one.orphan.kind != OrphanKind::Seed).then(|| (Some(*pool), file.clone()))
        }
        Place::Domain(id) => {
            node.undefine_only(*id).await?;
            observe::refresh_after(app, &node, *id).await;
            Some((None, id.to_string()))
        }
    };
    if let Some((pool, file)) = gone {
        let made = Made { kind: one.orphan.kind, node: node.name().to_owned(), pool, file };
        app.store.forget_made(&[made]).await?;
    }
    Ok(())
}
