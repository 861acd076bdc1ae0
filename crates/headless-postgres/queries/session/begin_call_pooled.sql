-- As begin_pooled, for a call of the provider: what the call has given up, the server gives up too.
begin isolation level read committed; deallocate all; set local jit = off;
set local statement_timeout = {statement_timeout}
