select {schema}.outbox_reap($1)
