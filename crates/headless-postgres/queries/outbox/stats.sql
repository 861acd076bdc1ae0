-- Counts every row: its cost is that of reading the table once.
select
    o.delayed,
    o.retrying,
    least(h.leased, o.present) as leased,
    o.present - least(h.leased, o.present) as ready,
    (extract(epoch from t.now - o.oldest) * 1000000)::bigint as oldest
from (select clock_timestamp() as now) t
cross join lateral (
    select
        count(*) filter (where r.due > t.now and r.part = -1) as delayed,
        count(*) filter (where r.due > t.now and r.part <> -1) as retrying,
        count(*) filter (where r.due > t.now is not true) as present,
        min(r.ready_at) filter (where r.part <> -1 or r.due <= t.now) as oldest
    from {schema}.outbox r
) o
cross join lateral (
    select coalesce(sum(cardinality(b.seqs)), 0)::bigint as leased
    from {schema}.outbox_batch b where b.until > t.now
) h
