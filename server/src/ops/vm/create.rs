//! Creating a VM from a template.

use super::is_up;
use crate::{
    App, Context, Error, Result,
    admission::{self, Reservation},
    index::Claim,
    observe,
    ops::{find, template},
    seed::{Seed, hash_password},
    seeds,
    store::{CopyRecord, TemplatePhase, TemplateRecord, VmPhase, VmRecord, VmSpec, VolumeRecord, VolumeRole},
    task::{Lock, Task, Undo, Work},
};
use api::{
    Rpc, Time,
    task::Target,
    vm::{CreateVm, Vm},
};
use hypervisor::{
    Node, VirtType,
    domain::{DomainSpec, Metadata, NicSpec, SystemDisk, TemplateRef},
    storage::{Backing, PoolView},
};
use uuid::Uuid;

/// A VM to make, with everything checked and looked up.
struct Plan {
    record: VmRecord,
    node: Node,
    pool: PoolView,
    seeds: PoolView,
    template: TemplateRecord,
    copy: CopyRecord,
    nics: Vec<NicSpec>,
    seed: Option<Seed>,
    virt_type: VirtType,
    start: bool,
    _reservation: Reservation,
    _claims: Vec<Claim>,
}

/// `create-vm`
pub async fn create(context: Context, request: CreateVm) -> Result<Work<Vm>> {
    let app = &context.app;
    let plan = check(app, request).await?;
    let record = &plan.record;
    let target = Target { kind: "vm".to_owned(), id: record.id, name: record.name.clone() };
    let held = app.locks.take(record.id, &record.name, &[Lock::Power, Lock::Disk], context.task, CreateVm::NAME)?;
    Ok(Work::new(target, held, move |task| make(task, plan)))
}

/// Checks everything that can be checked, and changes nothing but a reservation in memory.
async fn check(app: &App, request: CreateVm) -> Result<Plan> {
    // Of several calls with one name the first goes on; the others are told at once, before they keep room.
    let mut claims = vec![app.index.claim_name(&request.name)?];
    let max_vcpus = request.max_vcpus.unwrap_or(request.vcpus);
    if max_vcpus < request.vcpus {
        return Err(Error::field("max_vcpus", format!("must be at least vcpus ({})", request.vcpus)));
    }
    let max_memory_mib = request.max_memory_mib.unwrap_or(request.memory_mib);
    if max_memory_mib < request.memory_mib {
        return Err(Error::field("max_memory_mib", format!("must be at least memory_mib ({})", request.memory_mib)));
    }
    let template = template::get(app, &request.template).await?;
    if template.phase != TemplatePhase::Ready {
        return Err(Error::WrongState {
            detail: format!("template {} is not ready", template.name),
            hint: Some("describe-template says what is being done with it".to_owned()),
        });
    }
    let disk_bytes = disk_bytes(&request, &template)?;
    let id = Uuid::new_v4();
    let (node, copy, reservation) = place(app, id, &request, &template).await?;
    let facts = node.known_facts("make a VM")?;
    if facts.arch != "x86_64" {
        return Err(Error::Unsupported {
            detail: format!("node {} is of the architecture {}; only x86_64 is supported", node.name(), facts.arch),
            hint: None,
        });
    }
    let (pool, seeds, nics) = tokio::join!(
        find::pool_on(&node, request.pool.as_deref()),
        seeds::pool(&node),
        nics(app, &node, &request, &mut claims),
    );
    let (pool, seeds, nics) = (pool?, seeds?, nics?);
    let seed = seed(id, &request, &template)?;
    let record = VmRecord {
        id,
        domain: format!("{}-{}", request.name, &id.simple().to_string()[..8]),
        name: request.name,
        node: node.name().to_owned(),
        phase: VmPhase::Creating,
        spec: VmSpec {
            template: template.id,
            template_name: template.name.clone(),
            pool: pool.uuid,
            pool_name: pool.name.clone(),
            vcpus: request.vcpus,
            max_vcpus,
            memory_mib: request.memory_mib,
            max_memory_mib,
            disk_bytes,
            tags: request.tags,
            description: request.description,
            user: seed.as_ref().and_then(|seed| seed.user.clone()),
        },
        created_at: Time::now(),
        revision: 1,
    };
    let (virt_type, start) = (facts.virt_type, request.start);
    Ok(Plan {
        record,
        node,
        pool,
        seeds,
        template,
        copy,
        nics,
        seed,
        virt_type,
        start,
        _reservation: reservation,
        _claims: claims,
    })
}

/// Makes it, step by step; each step's undo is journalled before it begins.
async fn make(task: Task, plan: Plan) -> Result<Vm> {
    let app = &task.app;
    let (vm, node) = (plan.record.id, &plan.node);
    let on = || node.name().to_owned();

    task.step("record-vm", Some(Undo::ForgetVm { vm }), async {
        app.store.insert_vm(&plan.record).await?;
        app.index.put_record(plan.record.clone());
        Ok(())
    })
    .await?;

    let disk_id = Uuid::now_v7();
    let file = format!("{disk_id}.qcow2");
    let delete = Undo::DeleteVolume { node: on(), pool: plan.pool.uuid, file: file.clone(), volume: Some(disk_id) };
    let make_disk = task.step("make-system-disk", Some(delete), make_disk(app, &plan, disk_id, file));
    // Without a seed there is still the serial line's log, which a start makes.
    let delete = Undo::DeleteSeedFiles { node: on(), vm };
    let write_seed = task.step("write-seed", Some(delete), async {
        if let Some(seed) = &plan.seed {
            node.create_from_bytes(plan.seeds.uuid, &seeds::seed_file(vm), seed.to_iso()?).await?;
        }
        Ok(())
    });
    // Side by side, each to its end: one that fails doesn't cut the other in half.
    let (disk, seed) = tokio::join!(make_disk, write_seed);
    let disk = disk?;
    seed?;

    let xml = domain_spec(&plan, &disk)?.to_xml().map_err(|character| {
        Error::field("description", format!("has the character {character:?}, which XML can't hold"))
    })?;
    task.step("define-domain", Some(Undo::UndefineDomain { node: on(), vm }), async {
        Ok(node.define(&plan.record.domain, xml).await?)
    })
    .await?;

    if plan.start {
        task.step("start-domain", None, async { Ok(node.start(vm).await?) }).await?;
    }

    observe::refresh(app, node, vm).await?;
    task.step("make-ready", None, async {
        let mut record = plan.record.clone();
        app.store.vm_is_ready(&mut record, task.id).await?;
        app.index.put_record(record);
        Ok(())
    })
    .await?;
    app.index.to_wire(vm)
}

async fn make_disk(app: &App, plan: &Plan, id: Uuid, file: String) -> Result<VolumeRecord> {
    let backing = Backing { path: plan.copy.path.clone(), format: plan.template.spec.format.clone() };
    let made = plan.node.create_overlay(plan.pool.uuid, &file, plan.record.spec.disk_bytes, &backing).await?;
    let record = VolumeRecord {
        id,
        name: format!("system-{}", plan.record.id),
        node: plan.node.name().to_owned(),
        pool: plan.pool.uuid,
        pool_name: plan.pool.name.clone(),
        file,
        path: made.path,
        format: "qcow2".to_owned(),
        size_bytes: plan.record.spec.disk_bytes,
        role: VolumeRole::System,
        vm: Some(plan.record.id),
        device: Some("vda".to_owned()),
        template: Some(plan.template.id),
        created_at: Time::now(),
    };
    app.store.insert_volume(&record).await?;
    Ok(record)
}

fn domain_spec(plan: &Plan, disk: &VolumeRecord) -> Result<DomainSpec> {
    let (record, spec) = (&plan.record, &plan.record.spec);
    Ok(DomainSpec {
        id: record.id,
        name: record.domain.clone(),
        virt_type: plan.virt_type,
        vcpus: spec.vcpus,
        max_vcpus: spec.max_vcpus,
        memory_mib: spec.memory_mib,
        max_memory_mib: spec.max_memory_mib,
        system_disk: SystemDisk {
            path: disk.path.clone(),
            format: disk.format.clone(),
            serial: disk.id.simple().to_string()[12..].to_owned(),
        },
        seed: plan
            .seed
            .as_ref()
            .and_then(|_| Some(format!("{}/{}", plan.seeds.path.as_deref()?, seeds::seed_file(record.id)))),
        nics: plan.nics.clone(),
        serial_log: seeds::serial_log(&plan.seeds, record.id),
        vnc_password: crate::seed::random_text(8)?,
        metadata: Metadata {
            name: record.name.clone(),
            created_at: record.created_at.0,
            template: Some(TemplateRef { id: plan.template.id, name: plan.template.name.clone() }),
            system_volume: Some(disk.id),
            user: spec.user.clone(),
            description: spec.description.clone(),
            tags: spec.tags.clone(),
        },
    })
}

fn disk_bytes(request: &CreateVm, template: &TemplateRecord) -> Result<u64> {
    let needed = template.spec.virtual_bytes;
    match request.disk_gib {
        None => Ok(needed),
        Some(gib) if gib << 30 >= needed => Ok(gib << 30),
        Some(gib) => Err(Error::field(
            "disk_gib",
            format!("must be at least {}, the size of template {}, is {gib}", needed.div_ceil(1 << 30), template.name),
        )),
    }
}

/// The node for a VM, with room kept for it: the named one, or of those that have the template the one with the most
/// free memory.
async fn place(
    app: &App,
    vm: Uuid,
    request: &CreateVm,
    template: &TemplateRecord,
) -> Result<(Node, CopyRecord, Reservation)> {
    let mut copies = app.store.template_copies(Some(template.id)).await?;
    if let Some(reference) = &request.node {
        let node = app.node(reference)?.clone();
        let copy = copies.into_iter().find(|copy| copy.node == node.name()).ok_or_else(|| Error::Unsupported {
            detail: format!("template {} is not on node {}", template.name, node.name()),
            hint: Some("describe-template shows the nodes that have it".to_owned()),
        })?;
        let reservation = admission::reserve(app, &node, vm, request.vcpus, request.memory_mib)?;
        return Ok((node, copy, reservation));
    }
    // Nodes that are up first: one that has just been lost has a moment to come back.
    let free = |copy: &CopyRecord| {
        app.node(&copy.node).and_then(|node| admission::room(app, node)).map_or(0, |room| room.free_memory_mib)
    };
    let up = |copy: &CopyRecord| app.node(&copy.node).is_ok_and(is_up);
    copies.sort_by_cached_key(|copy| std::cmp::Reverse((up(copy), free(copy))));
    let mut why =
        Error::WrongState { detail: format!("template {} has no copy on any node", template.name), hint: None };
    for copy in copies {
        let Ok(node) = app.node(&copy.node) else { continue };
        if let Err(error) = node.wait_until_up("make a VM").await {
            why = error.into();
            continue;
        }
        match admission::reserve(app, node, vm, request.vcpus, request.memory_mib) {
            Ok(reservation) => return Ok((node.clone(), copy, reservation)),
            Err(error) => why = error,
        }
    }
    Err(why)
}

async fn nics(app: &App, node: &Node, request: &CreateVm, claims: &mut Vec<Claim>) -> Result<Vec<NicSpec>> {
    let Some(wanted) = &request.networks else {
        let network = find::network_on(node, "default").await?;
        return Ok(vec![NicSpec { network: network.name, mac: random_mac()? }]);
    };
    let mut nics: Vec<NicSpec> = Vec::new();
    for (position, nic) in wanted.iter().enumerate() {
        let network = find::network_on(node, &nic.network).await?;
        let mac = match &nic.mac {
            None => random_mac()?,
            Some(mac) => {
                let mac = mac.to_lowercase();
                let field = format!("networks[{position}].mac");
                let in_use = |by: &str| Error::field(field, format!("{mac} is in use by {by}"));
                // Of two calls with one address only the first goes on.
                if nics.iter().any(|other| other.mac == mac) {
                    return Err(in_use("another interface of this request"));
                }
                let Some(claim) = app.index.claim(&mac) else { return Err(in_use("a VM that is being made")) };
                if let Some(user) = mac_user(app, &mac) {
                    return Err(in_use(&user));
                }
                claims.push(claim);
                mac
            }
        };
        nics.push(NicSpec { network: network.name, mac });
    }
    Ok(nics)
}

/// The VM that has this hardware address.
fn mac_user(app: &App, mac: &str) -> Option<String> {
    let mut user = None;
    app.index.each(|_, entry, _| {
        if entry.seen.iter().flat_map(|seen| &seen.view.nics).any(|nic| nic.mac.eq_ignore_ascii_case(mac)) {
            user = Some(format!("VM {}", entry.name()));
        }
    });
    user
}

/// A hardware address of QEMU's range.
fn random_mac() -> Result<String> {
    let [a, b, c] = crate::seed::random_bytes::<3>()?;
    Ok(format!("52:54:00:{a:02x}:{b:02x}:{c:02x}"))
}

/// The seed, with the password hashed; from here on nobody has it in the clear.
fn seed(vm: Uuid, request: &CreateVm, template: &TemplateRecord) -> Result<Option<Seed>> {
    let given = request.cloud_init.clone().unwrap_or_default();
    if !template.spec.cloud_init {
        return match request.cloud_init {
            None => Ok(None),
            Some(_) => {
                Err(Error::field("cloud_init", format!("template {} has no cloud-init to read it", template.name)))
            }
        };
    }
    let user = given.user.or(template.spec.default_user.clone());
    let for_nobody = user.is_none() && (given.password.is_some() || !given.ssh_keys.is_empty());
    if for_nobody {
        return Err(Error::field(
            "cloud_init.user",
            "is needed for a password or keys, since the template has no default user",
        ));
    }
    let hostname = |name: &str| name.replace(['_', '.'], "-").trim_matches('-').to_owned();
    Ok(Some(Seed {
        instance_id: vm,
        hostname: given.hostname.unwrap_or_else(|| hostname(&request.name)),
        user,
        password_hash: given.password.as_deref().map(hash_password).transpose()?,
        ssh_keys: given.ssh_keys,
        user_data: given.user_data,
    }))
}
