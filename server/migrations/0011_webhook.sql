-- Who is sent events. The secret is what signatures are made with, so it can't be a hash.
create table webhook (
    id text primary key,
    name text not null,
    name_key text not null unique,
    url text not null,
    secret text not null,
    -- With commas between and around them; empty for all.
    kinds text not null,
    vm text,
    node text,
    created_at bigint not null,
    -- Events up to this number are done with.
    after_seq bigint not null,
    lost bigint not null
);

-- How events were sent, and the one that is tried again.
create table webhook_delivery (
    webhook text not null references webhook (id) on delete cascade,
    seq bigint not null,
    kind text not null,
    -- delivered, retrying or given_up
    state text not null,
    attempts bigint not null,
    status bigint,
    error text,
    took_ms bigint not null,
    first_at bigint not null,
    last_at bigint not null,
    primary key (webhook, seq)
);
