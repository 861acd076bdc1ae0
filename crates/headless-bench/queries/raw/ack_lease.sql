delete from raw_lease where seq = any($2) and owner = $1
