update {schema}.node n
set heard_at = clock_timestamp(), facts = $3
where n.incarnation = $2 and n.owner = $1 and n.ended is null and clock_timestamp() - n.heard_at < n.dead_after
returning true
