select back_id as id, back_epoch as epoch from {schema}.inbox_give_back($1, $2, $3, $4, 0, $5, null, true)
