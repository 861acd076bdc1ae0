select {schema}.member_recover($1, $2, $3, $4)
