select count(*) from {schema}.pooled where number = $1
