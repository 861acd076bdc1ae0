select row_to_json(published) from {schema}.published order by line
