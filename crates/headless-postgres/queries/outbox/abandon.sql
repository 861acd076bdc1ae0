select id, epoch from {schema}.outbox_abandon($1, $2, $3, $4, $5, $6::jsonb)
