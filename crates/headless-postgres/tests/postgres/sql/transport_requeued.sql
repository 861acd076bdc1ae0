-- As if each message had been taken and given back by itself.
insert into {schema}.group_delivery (grp, part, epoch, until, segment, deliveries, places)
select g.grp, g.part, nextval('{schema}.delivery_epoch'), clock_timestamp() - interval '1 second', 0, 1,
    int8multirange(int8range(n, n + 1))
from {schema}.group_part g join {schema}.topic_part p on p.id = g.part, generate_series(0, p.next - 1) n;
update {schema}.group_part g set reached = p.next, next_due = clock_timestamp() - interval '1 second'
from {schema}.topic_part p where p.id = g.part
