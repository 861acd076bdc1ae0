select o.next_in as outbox, i.parked, least(o.lease_in, i.lease) as lease,
    (select r.revision from {schema}.control_revision r) as control
from {schema}.outbox_pulse($1) o
cross join {schema}.inbox_pulse($1) i
