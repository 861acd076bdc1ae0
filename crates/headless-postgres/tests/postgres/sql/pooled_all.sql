select count(*) from {schema}.pooled
