-- The conditions are those of list.sql.
with found as (
    select d.n, d.dead_letter_id, d.origin, d.topic, d.buried_at, d.failures -> -1 ->> 'cause' as cause,
        {schema}.error_shape(d.failures -> -1 ->> 'message') as error
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
)
select f.origin, f.topic, f.cause, f.error, count(*) as rows, min(f.buried_at) as first, max(f.buried_at) as last,
    (array_agg(f.dead_letter_id order by f.n desc))[1] as sample
from found f
group by f.origin, f.topic, f.cause, f.error
order by count(*) desc, min(f.n)
limit $13
