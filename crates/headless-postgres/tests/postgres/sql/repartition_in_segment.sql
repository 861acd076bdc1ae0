select sum(p.next)::bigint - min(g.sent_before) as messages
from {schema}.topic_part p, {schema}.topic_segment g
