update {schema}.outbox_batch set until = clock_timestamp() - interval '1 second'
