-- What the process that something is done to has under way on the server.
select
    count(*) filter (where state = 'active') as active,
    count(*) filter (where state like 'idle in transaction%') as open
from pg_stat_activity
where application_name = '{schema}_{target}'
