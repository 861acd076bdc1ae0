update {schema}.outbox set due = clock_timestamp() where due is not null
