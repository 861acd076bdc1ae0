select consumer, line, key from {schema}.effects order by position
