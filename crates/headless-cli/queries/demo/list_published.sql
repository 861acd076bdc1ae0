select row_to_json(published)::text from {schema}.published order by line
