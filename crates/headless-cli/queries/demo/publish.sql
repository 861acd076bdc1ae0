insert into {schema}.published
select * from json_populate_record(null::{schema}.published, $1::json)
on conflict (line) do nothing
