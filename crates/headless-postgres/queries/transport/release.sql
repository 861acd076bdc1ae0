select {schema}.member_release($1, $2, $3, $4)
