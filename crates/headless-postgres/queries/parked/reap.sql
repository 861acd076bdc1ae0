select {schema}.inbox_reap($1)
