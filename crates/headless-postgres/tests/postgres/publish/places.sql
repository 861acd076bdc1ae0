select part, key_hash, count(*) as messages from {schema}.outbox group by part, key_hash
