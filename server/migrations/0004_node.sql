-- Nodes that add-node brought. The configuration file's are not here.
create table node (
    id text primary key,
    name text not null,
    name_key text not null unique,
    settings text not null,
    created_at bigint not null
);

-- Nodes on which no new VM is placed, the configuration file's included.
create table node_disabled (
    name_key text primary key
);
