select nextval('{schema}.calls')
