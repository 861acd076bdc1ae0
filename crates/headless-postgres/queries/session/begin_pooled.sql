-- Behind a pooler of transactions. The session has the names of statements that others prepared in it, and the client
-- counts its own from one: they would meet.
begin isolation level read committed; deallocate all
