select repository, event, handled from {schema}.event_statistics order by repository, event
