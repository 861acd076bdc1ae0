select s.oldest, s.current, (select count(*) from {schema}.topic_log) as messages from {schema}.topic_log_state s
