-- The transaction has its id before its numbers, and these are in the order of the batch (O3); rows are inserted in the
-- order of their ids, so that two batches cannot wait for each other.
insert into {schema}.outbox
    (part, seq, due, ready_at, id, topic, key, key_hash, priority, occurred_at, content_type, headers, payload)
select
    case when m.delay is null then {schema}.outbox_place(m.key_hash, m.priority) else -1 end,
    m.seq,
    clock_timestamp() + m.delay * interval '1 microsecond',
    clock_timestamp() + coalesce(m.delay, 0) * interval '1 microsecond',
    m.id, m.topic, m.key, m.key_hash, m.priority, m.occurred_at, m.content_type, m.headers, m.payload
from (
    select b.*, case when pg_current_xact_id() is not null then nextval('{schema}.outbox_seq') end as seq
    from (
        select * from unnest(
            $1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::text[], $7::text[], $8::bytea[],
            $9::smallint[], $10::bigint[]
        ) with ordinality as a(
            id, topic, key, key_hash, occurred_at, content_type, headers, payload, priority, delay, n
        )
        order by n
    ) b
) m
order by m.id, m.seq
on conflict (id) do nothing
returning id
