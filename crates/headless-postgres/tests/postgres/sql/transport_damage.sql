delete from {schema}.topic_log where place = {place}
