select sum(reached)::bigint as reached from {schema}.group_part
