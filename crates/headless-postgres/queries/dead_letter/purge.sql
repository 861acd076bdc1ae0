select {schema}.dead_letter_purge($1, $2)
