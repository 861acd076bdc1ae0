-- In the order of ids, which never change, and which rise with time as publishers make them. What a row's batch says of it
-- is looked up row by row, so that a page reads no more rows than it needs.
select e.id, e.topic, e.key, e.occurred_at, e.content_type, e.headers, e.payload, e.attempts, e.failures, e.owner, e.state
from (
    select o.id, o.topic, o.key, o.occurred_at, o.content_type, o.headers, o.payload, o.attempts,
        o.failures::text as failures, h.owner,
        case
            when h.owner is not null then 'leased'
            when o.due > t.now and o.part = -1 then 'delayed'
            when o.due > t.now then 'retrying'
            else 'ready'
        end as state
    from {schema}.outbox o
    cross join (select clock_timestamp() as now) t
    left join lateral (
        select b.owner from {schema}.outbox_batch b
        where b.part = o.part and b.until > t.now and o.seq = any (b.seqs)
        limit 1
    ) h on true
    where ($1::uuid is null or o.id > $1)
        and ($2::text is null or o.topic = $2)
        and ($3::text is null or o.key = $3)
        and ($4::uuid is null or o.id = $4)
) e
where $5::text is null or e.state = $5
order by e.id
limit $6
