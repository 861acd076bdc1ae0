-- Sent with the first BEGIN of a connection: what is sent with the later ones is not planned again. The client itself
-- prepares nothing that goes with another statement.
prepare headless_mark(text[], uuid[], text[], bigint[], text[], uuid[], bigint[], smallint, integer) as
    select {schema}.inbox_mark($1, $2, $3, $4, $5, $6, $7, $8, $9);
prepare headless_mark_one(text, uuid, text, bigint, integer) as
    select array[{schema}.inbox_mark_one($1, $2, $3, $4, $5)]
