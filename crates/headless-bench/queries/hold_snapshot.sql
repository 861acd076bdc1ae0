set transaction isolation level repeatable read; select count(*) from pg_class
