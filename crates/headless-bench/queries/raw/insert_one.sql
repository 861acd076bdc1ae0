insert into raw_lease (id, topic, key, occurred_at, content_type, headers, payload) values ($1, $2, $3, $4, $5, $6, $7)
