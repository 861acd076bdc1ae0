select r.name, r.received, coalesce(s.handled, 0), coalesce(s.gaps, 0),
    coalesce(
        (select jsonb_object_agg(e.event, e.handled) from event_statistics e where e.repository = r.name), '{}'
    )
from repository r left join statistics s on s.repository = r.name
where r.name > $1
order by r.name
limit $2
