set lock_timeout = '20s'; drop schema if exists {schema} cascade
