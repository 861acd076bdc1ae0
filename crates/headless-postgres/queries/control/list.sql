select c.service, c.subject, c.paused, c.concurrency, c.version, c.changed_by,
    {schema}.microseconds(clock_timestamp() - c.changed_at) as changed
from {schema}.control c
where c.service = $1 and c.subject > $2
order by c.subject
limit $3
