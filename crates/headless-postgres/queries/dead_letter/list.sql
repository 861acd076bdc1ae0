-- $3 and $4: any origin, the relay, or this group.
select d.n, d.dead_letter_id, d.origin, d.id, d.topic, d.key, d.occurred_at, d.content_type, d.headers, d.payload,
    d.failures::text as failures, d.rounds, d.buried_at, d.redrives, d.previous, d.edits, d.redriven_by, d.redriven_at,
    d.discarded_by, d.discarded_at
from {schema}.dead_letter d
where d.n > $1
    and ($2 or (d.redriven_at is null and d.discarded_at is null))
    and (not $3 or d.origin is not distinct from $4::text)
    and ($5::text is null or d.topic = $5)
    and ($6::text is null or d.failures -> -1 ->> 'cause' = $6)
    and ($7::text is null or position($7 in d.failures -> -1 ->> 'message') > 0)
    and ($8::timestamptz is null or d.buried_at >= $8)
    and ($9::timestamptz is null or d.buried_at < $9)
    and ($10::text is null or d.key = $10)
    and ($11::uuid is null or d.id = $11)
    and ($12::text is null or {schema}.error_shape(d.failures -> -1 ->> 'message') = $12)
order by d.n
limit $13
