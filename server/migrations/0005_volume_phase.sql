-- How far a volume is: ready, or being made, deleted, or let go of by its VM.
alter table volume add column phase text not null default 'ready';
