-- Between a sender's look for the current segment, and its lock of that segment's table.
alter table {schema}.topic_log alter column born set default {schema}.pause()
