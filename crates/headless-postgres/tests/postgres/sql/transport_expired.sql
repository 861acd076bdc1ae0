-- Very many messages of one part that have expired, in the place of the first.
update {schema}.topic_part set next = 30000, uneven = true where number = 0;
insert into {schema}.topic_log (slot, part, place, occurred_at, expires_at, payload)
select 0, p.id, n, clock_timestamp(), clock_timestamp() - interval '1 minute', 'x'
from {schema}.topic_part p, generate_series(0, 29999) n where p.number = 0
