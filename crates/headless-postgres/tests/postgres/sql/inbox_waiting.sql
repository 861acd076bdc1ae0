-- Very many parked messages, each of which waits for an idempotency key that another has; but the last one's is free.
insert into {schema}.inbox (grp, id, topic, idempotency_key, state, at, place, epoch, rounds, queue)
select 'billing', gen_random_uuid(), 'orders', to_char(n, 'FM0000'), 1, clock_timestamp(), nextval('{schema}.inbox_place'), 0, 0, 2
from generate_series(1, 1300) n;
insert into {schema}.parked_message (grp, id, occurred_at, payload)
select i.grp, i.id, clock_timestamp(), 'x' from {schema}.inbox i;
insert into {schema}.inbox (grp, id, topic, state, at, epoch, rounds, owner)
select 'billing', gen_random_uuid(), 'orders', 0, clock_timestamp() + interval '1 hour', 1, 1, gen_random_uuid()
from generate_series(1, 1299) n;
insert into {schema}.idempotency (grp, key, id)
select 'billing', to_char(n, 'FM0000'), h.id
from (select i.id, row_number() over () as n from {schema}.inbox i where i.state = 0) h
