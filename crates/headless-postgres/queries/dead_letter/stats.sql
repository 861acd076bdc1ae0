select d.origin, d.topic, d.failures -> -1 ->> 'cause' as cause, count(*) as rows,
    {schema}.microseconds(clock_timestamp() - min(d.buried_at)) as oldest
from {schema}.dead_letter d
where d.redriven_at is null and d.discarded_at is null
group by 1, 2, 3
order by 1 nulls last, 2, 3
