update {schema}.topic_log set headers = 'not json' where payload = 'bad'
