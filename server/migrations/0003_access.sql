-- Names of tokens are unique without case: client tokens and tasks are kept by the caller's name.
create unique index token_name on token (lower(name));

-- Sessions of browsers. They end with their token.
create table session (
    hash text primary key,
    token text not null references token (id) on delete cascade,
    created_at bigint not null,
    expires_at bigint not null
);

-- Who asked for which change, and what was said to it. Never what was in the request.
create table audit (
    id text primary key,
    created_at bigint not null,
    caller text not null,
    method text not null,
    target_kind text,
    target_id text,
    target_name text,
    task text,
    request_id text not null,
    remote text,
    outcome text not null
);
create index audit_created_at on audit (created_at);
