select {schema}.outbox_release($1)
