select (extract(epoch from max(n.heard_at)) * 1000000)::bigint as heard_at from {schema}.node n where n.ended is null
