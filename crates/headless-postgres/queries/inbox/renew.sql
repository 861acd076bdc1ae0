select held_id as id, held_epoch as epoch from {schema}.inbox_renew($1, $2, $3, $4, $5)
