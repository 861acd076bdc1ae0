create schema {schema};
grant usage, create on schema {schema} to {schema};
