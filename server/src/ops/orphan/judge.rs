//! What of a node's files and domains is left over, why it is taken for Vmyard's, and what keeps it.

use super::{
    known::{Known, id_in, looks_like, name_of},
    survey::{FileSeen, Survey},
};
use crate::{App, seeds, store::MadeRecord};
use api::orphan::{Orphan, OrphanKind};
use hypervisor::domain::{DomainText, Power};
use std::collections::HashSet;
use uuid::Uuid;

/// Why what isn't in the ledger stays.
const NOT_KNOWN: &str = "Vmyard doesn't know that it has made it: it may belong to another Vmyard, or be older than this one's \
                         database; if it is yours, delete it by hand";

/// Something left over.
#[derive(Clone)]
pub struct Candidate {
    /// As it is told.
    pub orphan: Orphan,
    /// Where it is.
    pub place: Place,
    /// What it is locked by: the id in its name.
    pub lock: Uuid,
    /// The ids of the orphans, or other things, that refer to it.
    users: Vec<String>,
    /// What keeps it whatever becomes of others.
    kept: Option<String>,
}

/// Where something is on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file of a pool.
    File {
        /// The pool.
        pool: Uuid,
        /// libvirt's name for it.
        file: String,
    },
    /// A domain.
    Domain(Uuid),
}

/// What is left over on a node.
pub fn judge(app: &App, survey: &Survey, known: &Known) -> Vec<Candidate> {
    let domains = survey.domains.iter().filter_map(|domain| of_domain(&survey.node, domain, known));
    let files = survey.files.iter().filter_map(|file| of_file(app, survey, file, known));
    domains.chain(files).collect()
}

fn of_domain(node: &str, domain: &DomainText, known: &Known) -> Option<Candidate> {
    let id = domain.defined.uuid;
    let maker = known.maker_of_domain(id);
    if known.has_vm(id) || maker.is_some_and(|maker| known.is_at_work(maker)) {
        return None;
    }
    if maker.is_none() {
        domain.defined.metadata.as_ref()?;
    }
    let evidence = "its metadata has Vmyard's element";
    let mut orphan = told(node, &id.to_string(), OrphanKind::Domain, maker, evidence);
    orphan.domain = Some(domain.defined.name.clone());
    let running = (domain.power != Power::Off).then(|| "it is not off; stop it first (stop-vm)".to_owned());
    let kept = maker.is_none().then(|| NOT_KNOWN.to_owned()).or(running);
    Some(Candidate { orphan, place: Place::Domain(id), lock: id, users: Vec::new(), kept })
}

fn of_file(app: &App, survey: &Survey, file: &FileSeen, known: &Known) -> Option<Candidate> {
    let (name, of_seeds) = (&file.view.name, file.pool_name == seeds::POOL);
    let maker = known.maker_of_file(file.pool, of_seeds, name);
    let looks = looks_like(of_seeds, name);
    if (maker.is_none() && looks.is_none()) || known.refers_to_file(name) {
        return None;
    }
    if maker.is_some_and(|maker| known.is_at_work(maker)) {
        return None;
    }
    let kind = maker.map(|maker| maker.made.kind).or(looks)?;
    let evidence = "its name has the form of those that Vmyard gives";
    let mut orphan = told(&survey.node, &file.view.path, kind, maker, evidence);
    orphan.pool = Some(file.pool_name.clone());
    orphan.path = Some(file.view.path.clone());
    orphan.size_bytes = Some(file.view.allocation);
    let mut users = Vec::new();
    for domain in survey.domains.iter().filter(|domain| domain.names(name)) {
        users.push(domain.defined.uuid.to_string());
        orphan.referrers.push(format!("domain {}", domain.defined.name));
    }
    let names_it = |path: &str| name_of(path) == name;
    for image in survey.files.iter().filter(|image| image.view.backing.as_deref().is_some_and(names_it)) {
        users.push(image.view.path.clone());
        orphan.referrers.push(format!("image {}", image.view.path));
    }
    // A pool may be shared by nodes.
    app.index.each(|id, entry| {
        let Some(view) = entry.seen.as_ref().map(|seen| &seen.view).filter(|_| entry.node != survey.node) else {
            return;
        };
        let disks = view.disks.iter().flat_map(|disk| {
            disk.path.iter().chain(&disk.backing).chain(disk.volume.as_ref().map(|(_, volume)| volume))
        });
        if disks.chain(&view.nvram).any(|path| names_it(path)) {
            users.push(id.to_string());
            orphan.referrers.push(format!("VM {} on node {}", entry.name(), entry.node));
        }
    });
    let unread = survey.unread.first();
    let is_image = matches!(kind, OrphanKind::Volume | OrphanKind::Template);
    let unread = unread.or_else(|| survey.unread_images.first().filter(|_| is_image));
    let unread = unread.map(|what| format!("what refers to it can't be told: {what}"));
    let kept = maker.is_none().then(|| NOT_KNOWN.to_owned()).or(unread);
    let place = Place::File { pool: file.pool, file: name.clone() };
    Some(Candidate { orphan, place, lock: id_in(name).unwrap_or_default(), users, kept })
}

fn told(node: &str, id: &str, kind: OrphanKind, maker: Option<&MadeRecord>, looks: &str) -> Orphan {
    let evidence = match maker {
        Some(MadeRecord { by, .. }) => {
            format!("made by {} of {} {} (task {})", by.method, by.target.kind, by.target.name, by.task)
        }
        None => looks.to_owned(),
    };
    Orphan {
        id: id.to_owned(),
        kind,
        node: node.to_owned(),
        pool: None,
        path: None,
        size_bytes: None,
        domain: None,
        made_at: maker.map(|maker| maker.at),
        made_by: maker.map(|maker| maker.by.clone()),
        evidence,
        referrers: Vec::new(),
        cleanable: false,
        why_not: None,
    }
}

/// Says of each whether it can go, if the others that can go first, and puts those in an order in which none goes before what
/// refers to it.
pub fn settle(candidates: Vec<Candidate>) -> (Vec<Candidate>, Vec<Candidate>) {
    let (mut going, mut rest): (Vec<Candidate>, Vec<Candidate>) = (Vec::new(), candidates);
    let mut gone: HashSet<(String, String)> = HashSet::new();
    loop {
        let free = |one: &Candidate| {
            let goes = |user: &String| gone.contains(&(one.orphan.node.clone(), user.clone()));
            one.kept.is_none() && one.users.iter().all(goes)
        };
        let (freed, left): (Vec<_>, Vec<_>) = rest.into_iter().partition(free);
        rest = left;
        if freed.is_empty() {
            break;
        }
        gone.extend(freed.iter().map(|one| (one.orphan.node.clone(), one.orphan.id.clone())));
        going.extend(freed);
    }
    for one in &mut going {
        one.orphan.cleanable = true;
    }
    for one in &mut rest {
        one.orphan.why_not = one.why_it_stays();
    }
    (going, rest)
}

impl Candidate {
    /// Whether the ledger doesn't have it.
    pub fn has_no_maker(&self) -> bool {
        self.orphan.made_by.is_none()
    }

    /// Why it must stay as long as what refers to it is there.
    pub fn why_it_stays(&self) -> Option<String> {
        let users = || Some(self.orphan.referrers.join(", ")).filter(|users| !users.is_empty());
        self.kept.clone().or_else(|| users().map(|users| format!("in use by {users}")))
    }
}
