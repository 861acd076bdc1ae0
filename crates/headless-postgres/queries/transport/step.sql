select kind, part, epoch, place, deliveries, id, topic, key, occurred_at, content_type, headers, payload,
    parts, holds, leaving
from {schema}.member_step($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
