select n.incarnation, n.owner, n.label,
    case
        when c.now - n.heard_at >= n.dead_after then 2
        when c.now - n.heard_at >= n.suspect_after then 1
        else 0
    end::smallint as state
from {schema}.node n, (select clock_timestamp() as now offset 0) c
where n.ended is null and n.incarnation > $1
order by n.incarnation
limit $2
