select id, epoch from {schema}.outbox_fail($1, $2, $3, $4::jsonb)
