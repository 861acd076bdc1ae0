select * from {schema}.outbox_claim($1, $2, $3, $4, $5, $6)
