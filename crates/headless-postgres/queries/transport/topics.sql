select t.id, t.name, t.partitions, array_agg(p.id order by p.number) as parts
from {schema}.topic t join {schema}.topic_part p on p.topic = t.id
where t.name = any ($1)
group by t.id
