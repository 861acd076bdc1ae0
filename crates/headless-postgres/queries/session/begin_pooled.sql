-- Behind a pooler of transactions. The session has the names of statements that others prepared in it, and the client
-- counts its own from one: they would meet. What connections of ours say when they start is said here: the server would
-- spend a second on compiling a statement that takes a millisecond, and do it again at each call.
begin isolation level read committed; deallocate all; set local jit = off
