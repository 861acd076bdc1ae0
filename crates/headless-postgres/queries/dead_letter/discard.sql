update {schema}.dead_letter d
set discarded_by = $2, discarded_at = clock_timestamp()
where d.dead_letter_id = any($1) and d.redriven_at is null and d.discarded_at is null
