-- The transaction has its id before its number (O3).
insert into {schema}.outbox
    (part, seq, due, ready_at, id, topic, key, key_hash, priority, occurred_at, content_type, headers, payload)
values (
    case when $10::bigint is null then {schema}.outbox_place($4, $9) else -1 end,
    case when pg_current_xact_id() is not null then nextval('{schema}.outbox_seq') end,
    clock_timestamp() + $10 * interval '1 microsecond',
    clock_timestamp() + coalesce($10, 0) * interval '1 microsecond',
    $1, $2, $3, $4, $9, $5, $6, $7, $8
)
on conflict (id) do nothing
