insert into {schema}.node (owner, service, label, suspect_after, dead_after, registered_at, heard_at, ended, ended_at, facts)
select gen_random_uuid(), 'orders', 'gone', interval '30 s', interval '60 s', clock_timestamp(), clock_timestamp(), 2,
    clock_timestamp(), '{}'
from generate_series(1, 5000);
insert into {schema}.node (owner, service, label, suspect_after, dead_after, facts)
select gen_random_uuid(), 'orders', 'here', interval '30 s', interval '60 s', '{}' from generate_series(1, 10);
analyze {schema}.node
