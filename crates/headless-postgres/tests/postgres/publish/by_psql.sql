select {schema}.publish('notes.noted', jsonb_build_object('text', 'from psql'), 'k', '{"by": "psql"}')
