select d.n, d.dead_letter_id, d.origin, d.id, d.topic, d.key, d.occurred_at, d.content_type, d.headers, d.payload,
    d.failures::text as failures, d.rounds, d.buried_at, d.redrives, d.previous, d.edits, d.redriven_by, d.redriven_at,
    d.discarded_by, d.discarded_at
from {schema}.dead_letter d
where d.dead_letter_id = $1
