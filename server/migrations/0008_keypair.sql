-- SSH keypairs: the public half only. All else that is told of a keypair is read from its line.
create table keypair (
    id text primary key,
    name text not null,
    name_key text not null unique,
    public_key text not null,
    created_at bigint not null
);
