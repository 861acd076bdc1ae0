select consumer, line, count(*) from {schema}.calls group by consumer, line
