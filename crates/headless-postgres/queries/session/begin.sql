-- Whatever the default of the user or the database is: what is decided under a lock must be seen by a statement that
-- began after it was taken.
begin isolation level read committed
