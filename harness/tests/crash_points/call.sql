insert into {schema}.calls (consumer, line) select $1, unnest($2::integer[])
