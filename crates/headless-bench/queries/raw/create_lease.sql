-- The unordered lease loop, as good as it gets: a claim touches only columns without an index, on pages with room.
drop table if exists raw_lease;
create table raw_lease (
    seq bigint generated always as identity primary key,
    id uuid not null,
    topic text not null,
    key text,
    occurred_at timestamptz not null,
    content_type text,
    headers text,
    payload bytea not null,
    owner uuid,
    epoch bigint not null default 0,
    lease_until timestamptz
) with (fillfactor = 50)
