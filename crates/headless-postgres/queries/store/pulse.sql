select o.next_in as outbox, i.parked, least(o.lease_in, i.lease) as lease
from {schema}.outbox_pulse($1) o
cross join {schema}.inbox_pulse($1) i
