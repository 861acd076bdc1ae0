select m.safe_seq, m.marks[17] as mark, (select o.seq from {schema}.outbox o order by o.seq limit 1) as first
from {schema}.outbox_mark m
