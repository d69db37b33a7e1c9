-- Which Vmyard this is: one row, which goes along with a backup. Nodes may be shared, and manifests on them name it.
create table installation (
    id text primary key,
    created_at bigint not null
);
