-- As docs/providers/postgres.md has it for a user who does not migrate.
grant usage on schema {schema} to {schema};
grant select, insert, update, delete on all tables in schema {schema} to {schema};
grant usage, select, update on all sequences in schema {schema} to {schema};
grant execute on all functions in schema {schema} to {schema};
