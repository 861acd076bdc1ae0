insert into {schema}.handled (line, key, idempotency_key, message)
select line, key, idempotency_key, message from json_populate_record(null::{schema}.handled, $1::json)
