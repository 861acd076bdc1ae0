insert into {schema}.migration (version, name, checksum) values (9999, '9999_later', '')
