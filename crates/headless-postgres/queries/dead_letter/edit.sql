select {schema}.dead_letter_edit($1, $2, $3, $4, $5)
