-- Resets of passwords and keys that the guest takes over when it boots the next time, and what came of them: the last one of each user.
-- No secret is in here.
create table credential_check (
    vm text not null,
    user_name text not null,
    -- password or ssh_keys
    kind text not null,
    task text not null,
    -- pending, verified, failed or unknown
    state text not null,
    reason text,
    -- The boot of the guest at the reset: 'off', its boot id, or empty when that isn't known.
    boot text not null,
    created_at bigint not null,
    checked_at bigint,
    primary key (vm, user_name, kind)
);
