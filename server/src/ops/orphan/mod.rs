//! What is left over on the nodes: files and domains of Vmyard's to which none of its objects refers any more.
//!
//! That something is Vmyard's is known by the ledger alone (`store::made`), never by its name. What refers to it is read from the
//! node at that moment.

mod clean;
mod judge;
mod known;
mod survey;

pub use clean::clean;

use super::{find, page};
use crate::{App, Context, Result, nodes::Member, seeds, store::Made};
use api::{
    Page,
    orphan::{ListOrphans, Orphan, OrphanKind, Orphans},
};
use hypervisor::{Node, Status};
use judge::{Candidate, Place, judge, settle};
use known::Known;
use std::time::Duration;
use survey::{FileSeen, Survey, survey};

/// How long a node has to be looked at whole.
const SURVEY: Duration = Duration::from_secs(60);

/// `list-orphans`
pub async fn list(context: Context, request: ListOrphans) -> Result<Orphans> {
    let app = &context.app;
    let (candidates, unreachable) = candidates(app, nodes(app, request.node.as_deref())?).await?;
    let (going, staying) = settle(candidates);
    let mut rows: Vec<_> = going.into_iter().chain(staying).map(|one| one.orphan).collect();
    rows.retain(|orphan| request.kind.is_none_or(|kind| orphan.kind == kind));
    let key = |orphan: &Orphan| format!("{}\n{}", orphan.node, orphan.id);
    rows.sort_by_key(key);
    let page = Page { limit: request.limit, cursor: request.cursor };
    let cut = page::cut(rows, &page, key)?;
    Ok(Orphans { orphans: cut.rows, next_cursor: cut.next_cursor, total: cut.total, unreachable })
}

/// The named node, or all: each host once.
fn nodes(app: &App, reference: Option<&str>) -> Result<Vec<Node>> {
    let once = |member: &Member| app.nodes.same_host(member).is_none();
    match reference {
        Some(reference) => Ok(vec![app.node(reference)?]),
        None => Ok(app.nodes.all().into_iter().filter(once).map(|member| member.node).collect()),
    }
}

/// What is left over on these nodes, and the nodes that don't answer.
async fn candidates(app: &App, nodes: Vec<Node>) -> Result<(Vec<Candidate>, Vec<String>)> {
    let before = Known::read(app).await?;
    let (surveys, unreachable) = find::ask_nodes_within(SURVEY, nodes, survey).await;
    // What came while the nodes were looked at, and what went, is no orphan.
    let known = before.and(Known::read(app).await?);
    let mut candidates = Vec::new();
    for (node, survey) in &surveys {
        let (unknown, mut made) = judge(app, survey, &known).into_iter().partition(Candidate::has_no_maker);
        candidates.append(&mut made);
        candidates.append(&mut still_there(node, unknown).await);
    }
    Ok((candidates, unreachable))
}

/// Without what came and went while the node was looked at: Vmyard may have made it after the first reading of the ledger, and
/// have deleted it before the second.
async fn still_there(node: &Node, candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut there = Vec::new();
    let mut answers = true;
    for one in candidates {
        let found = match &one.place {
            _ if !answers => Ok(true),
            Place::File { pool, file } => node.volume(*pool, file).await.map(|found| found.is_some()),
            Place::Domain(id) => node.power(*id).await.map(|found| found.is_some()),
        };
        // A node that is silent now isn't asked again and again.
        answers = found.is_ok();
        if found.unwrap_or(true) {
            there.push(one);
        }
    }
    there
}

/// Takes what is gone out of the ledger, as far as the node can tell: no object refers to it, and it is not there. That what an
/// object refers to is not there says nothing: a VM's NVRAM, for one, comes with its next start.
pub async fn forget_gone(app: &App, node: &Node) -> Result<()> {
    let before = Known::read(app).await?;
    if node.status().0 != Status::Up || before.left_over().next().is_none() {
        return Ok(());
    }
    let survey = survey(node.clone()).await?;
    let known = before.and(Known::read(app).await?);
    let gone: Vec<_> =
        known.left_over().map(|record| &record.made).filter(|made| is_gone(&survey, made)).cloned().collect();
    if !gone.is_empty() {
        app.store.forget_made(&gone).await?;
        tracing::info!(node = node.name(), things = gone.len(), "what is gone from the node is forgotten");
    }
    Ok(())
}

/// Whether it was looked for where it must be, and not found.
fn is_gone(survey: &Survey, made: &Made) -> bool {
    let is_it = |file: &FileSeen| Some(file.pool) == made.pool && file.view.name == made.file;
    let of_vm = |file: &FileSeen| file.pool_name == seeds::POOL && file.view.name.starts_with(&made.file);
    match (made.pool, made.kind) {
        (Some(pool), _) => survey.pools.contains(&pool) && !survey.files.iter().any(is_it),
        (None, _) if made.node != survey.node => false,
        (None, OrphanKind::Domain) => {
            survey.all_domains && !survey.domains.iter().any(|domain| domain.defined.uuid.to_string() == made.file)
        }
        (None, _) => survey.seeds && !survey.files.iter().any(of_vm),
    }
}
