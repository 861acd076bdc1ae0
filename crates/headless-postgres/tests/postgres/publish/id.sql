select floor(extract(epoch from clock_timestamp()) * 1000)::bigint as before,
    {schema}.publish('notes.noted', '{"text": "x"}') as id,
    ceil(extract(epoch from clock_timestamp()) * 1000)::bigint as after
