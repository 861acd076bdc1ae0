select {schema}.inbox_purge($1, $2)
