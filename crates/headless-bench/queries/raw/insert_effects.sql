insert into effect (id, body) select * from unnest($1::uuid[], $2::bytea[])
