-- Snapshots outlive their VM, so what they have of it is told by value. A disk of a snapshot is an image that nobody writes to
-- any more; `backing` and `base` are the path of the image that it, or a volume's image, stands on.
create table snapshot (
    id text primary key,
    vm text not null,
    name text not null,
    name_key text not null,
    node text not null,
    parent text,
    phase text not null,
    spec text not null,
    created_at bigint not null,
    revision bigint not null,
    unique (vm, name_key)
);

create table snapshot_disk (
    snapshot text not null references snapshot (id),
    volume text not null,
    device text not null,
    pool text not null,
    pool_name text not null,
    file text not null,
    path text not null,
    backing text,
    size_bytes bigint not null,
    template text references template (id),
    primary key (snapshot, volume)
);
create index snapshot_disk_volume on snapshot_disk (volume);
create index snapshot_disk_template on snapshot_disk (template);

-- Images that nobody needs any more and that are to be deleted.
create table leftover (
    node text not null,
    pool text not null,
    file text not null,
    path text not null,
    primary key (node, pool, file)
);

alter table volume add column base text;
alter table vm add column snapshot text;
