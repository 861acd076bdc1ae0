select last_value from {schema}.calls
