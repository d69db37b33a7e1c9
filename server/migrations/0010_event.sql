-- What has happened, in its order: numbers have no holes, and an event with a greater one was committed later.
create table event (
    seq bigint primary key,
    created_at bigint not null,
    kind text not null,
    vm text,
    vm_name text,
    node text,
    task text,
    message text not null,
    -- JSON
    details text not null
);
create index event_vm on event (vm, seq);

-- One row, which each transaction that tells something holds until its end.
create table event_counter (
    id bigint primary key,
    last bigint not null
);
insert into event_counter (id, last) values (1, 0);
