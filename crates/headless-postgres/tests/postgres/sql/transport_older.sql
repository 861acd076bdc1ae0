-- As if the segment that is written had been begun eleven seconds earlier.
update {schema}.topic_segment g set opened_at = g.opened_at - interval '11 s'
from {schema}.topic_log_state s where g.id = s.current
