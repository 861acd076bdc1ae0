select answers, epochs, rounds from {schema}.inbox_admit($1, $2, $3, $4, $5, $6, $7, $8)
