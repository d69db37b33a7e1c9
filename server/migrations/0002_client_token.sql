-- What a caller has asked for under a token of its own, so that asking again gives the same answer.
create table client_token (
    caller text not null,
    method text not null,
    token text not null,
    body_hash text not null,
    task text not null references task (id),
    created_at bigint not null,
    primary key (caller, method, token)
);
