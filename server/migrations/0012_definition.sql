-- What was last known of the definitions of our VMs: what another Vmyard or somebody else has changed is told by that.
create table definition (
    vm text primary key references vm (id) on delete cascade,
    -- JSON
    seen text not null
);
