insert into {schema}.published (line) values ($1) on conflict (line) do nothing
