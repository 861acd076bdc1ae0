select s.id, d.oid::bigint as database
from {schema}.store s, pg_database d
where d.datname = current_database()
