insert into {schema}.migration (version, name, checksum) values ($1, $2, $3)
