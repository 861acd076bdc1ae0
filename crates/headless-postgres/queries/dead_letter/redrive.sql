select {schema}.dead_letter_redrive($1, $2, $3, $4, $5)
