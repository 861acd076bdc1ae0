select id, epoch, rounds, failures, ordered, idempotency_key, topic, key, occurred_at, content_type, headers, payload
from {schema}.inbox_claim($1, $2, $3, $4, $5)
