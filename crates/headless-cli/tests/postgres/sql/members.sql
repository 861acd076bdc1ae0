select
    m.id::text as id,
    m.live,
    (select count(*) from {schema}.group_part p where p.holder = m.id) as partitions,
    (select count(*) from {schema}.group_delivery d where d.member = m.id) as deliveries
from {schema}.group_member m
where m.live or exists (select from {schema}.group_delivery d where d.member = m.id)
