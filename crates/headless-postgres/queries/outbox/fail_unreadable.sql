select id, epoch from {schema}.outbox_fail_unreadable($1, $2, $3, $4)
