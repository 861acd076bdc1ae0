select dead_letter_id, topic, failures::text as failures from {schema}.dead_letter
where redriven_at is null order by n
