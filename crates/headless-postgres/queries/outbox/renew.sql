select id, epoch from {schema}.outbox_renew($1, $2, $3, $4)
