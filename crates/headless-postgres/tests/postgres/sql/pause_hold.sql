select pg_advisory_lock(hashtextextended('{schema} pause', 0))
