-- A COMMIT of a transaction that an error has doomed rolls back and reports success. The first statement fails instead: one
-- that does nothing else and needs no plan.
unlisten headless; commit
