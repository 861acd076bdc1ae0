delete from raw_lease where seq = any($1)
