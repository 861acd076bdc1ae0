update {schema}.group_instance
set until = clock_timestamp() + $2 * interval '1 microsecond'
where id = $1
returning id
