select name from {schema}.orders order by name
