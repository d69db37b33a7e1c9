-- Plain SQL that SQLite and PostgreSQL read alike: UUIDs and JSON as text, moments as milliseconds since 1970.
-- name_key is the name in lower case: names are unique without case.
create table vm (
    id text primary key,
    name text not null,
    name_key text not null unique,
    node text not null,
    domain text not null,
    phase text not null,
    spec text not null,
    created_at bigint not null,
    revision bigint not null
);

create table template (
    id text primary key,
    name text not null,
    name_key text not null unique,
    phase text not null,
    spec text not null,
    created_at bigint not null,
    revision bigint not null
);

create table template_copy (
    template text not null references template (id),
    node text not null,
    pool text not null,
    pool_name text not null,
    file text not null,
    path text not null,
    primary key (template, node)
);

create table volume (
    id text primary key,
    name text not null,
    name_key text not null,
    node text not null,
    pool text not null,
    pool_name text not null,
    file text not null,
    path text not null,
    format text not null,
    size_bytes bigint not null,
    role text not null,
    vm text references vm (id),
    device text,
    template text references template (id),
    created_at bigint not null,
    revision bigint not null,
    unique (node, pool, name_key)
);
create index volume_vm on volume (vm);
create index volume_template on volume (template);

create table task (
    id text primary key,
    method text not null,
    target_kind text not null,
    target_id text not null,
    target_name text not null,
    caller text not null,
    state text not null,
    progress bigint,
    result text,
    error text,
    created_at bigint not null,
    finished_at bigint
);
create index task_state on task (state);

create table task_step (
    task text not null references task (id),
    seq bigint not null,
    name text not null,
    undo text,
    state text not null,
    started_at bigint not null,
    finished_at bigint,
    primary key (task, seq)
);

create table token (
    id text primary key,
    name text not null,
    hash text not null unique,
    role text not null,
    expires_at bigint,
    created_at bigint not null
);
