select version from {schema}.migration order by applied_at, version
