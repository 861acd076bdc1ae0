select r.name, r.received, s.handled, s.last_number, s.gaps
from {schema}.repository r left join {schema}.statistics s on s.repository = r.name
where s.repository is null or (r.received, r.received, 0) <> (s.handled, s.last_number, s.gaps)
