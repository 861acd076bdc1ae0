truncate outbox
