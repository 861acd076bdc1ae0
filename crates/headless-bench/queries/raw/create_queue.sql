-- A queue by hand: one table, claimed under a lease on columns without an index, deleted when done.
drop table if exists raw_queue;
create table raw_queue (
    seq bigint generated always as identity primary key,
    id uuid not null,
    topic text not null,
    key text,
    occurred_at timestamptz not null,
    content_type text,
    headers text,
    payload bytea not null,
    owner uuid,
    lease_until timestamptz
) with (fillfactor = 50)
