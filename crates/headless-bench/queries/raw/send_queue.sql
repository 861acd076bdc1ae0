insert into raw_queue (id, topic, key, occurred_at, content_type, headers, payload)
select * from unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::bytea[])
