select row_to_json(handled) from {schema}.handled order by position
