select row_to_json(handled)::text from {schema}.handled order by position
