update {schema}.group_member set until = clock_timestamp() - interval '2 hours'
