select seq, id, topic, key, occurred_at, content_type, headers, payload from raw_lease order by seq limit $1
