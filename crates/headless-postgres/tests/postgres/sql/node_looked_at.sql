select incarnation from {schema}.node where look_at is not null
