-- What this Vmyard has made on its nodes, written before it is made: the evidence that something there is its own. A row outlives
-- what referred to it, and goes when the thing is gone. `file` is libvirt's name of a volume of `pool`; of what belongs to a VM in
-- the pool of the seeds (no `pool`) the VM's id, with which all its names begin; of a domain (no `pool`) its UUID.
create table made (
    kind text not null,
    pool text not null,
    file text not null,
    node text not null,
    task text not null,
    method text not null,
    target_kind text not null,
    target_id text not null,
    target_name text not null,
    created_at bigint not null,
    primary key (kind, pool, file)
);
