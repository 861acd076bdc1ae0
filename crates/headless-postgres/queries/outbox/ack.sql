select id, epoch from {schema}.outbox_ack($1, $2, $3)
