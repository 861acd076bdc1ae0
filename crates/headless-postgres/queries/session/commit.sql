-- A COMMIT of a transaction that an error has doomed rolls back and reports success. The first statement fails instead.
select 1; commit
