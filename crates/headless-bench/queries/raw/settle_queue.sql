delete from raw_queue where seq = any($2) and owner = $1
