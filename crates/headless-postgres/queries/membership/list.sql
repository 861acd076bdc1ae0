select n.incarnation, n.owner, n.service, n.label, n.facts,
    {schema}.microseconds(c.now - n.registered_at) as registered,
    {schema}.microseconds(c.now - n.heard_at) as silent,
    case
        when n.ended is not null then n.ended
        when c.now - n.heard_at >= n.dead_after then 2
        when c.now - n.heard_at >= n.suspect_after then 1
        else 0
    end::smallint as state,
    {schema}.microseconds(n.suspect_after) as suspect_after,
    {schema}.microseconds(n.dead_after) as dead_after
from {schema}.node n, (select clock_timestamp() as now offset 0) c
where n.incarnation > $1
order by n.incarnation
limit $2
