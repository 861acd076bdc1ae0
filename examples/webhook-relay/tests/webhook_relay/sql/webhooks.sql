select repository, event, count(*) from {schema}.webhook group by repository, event order by repository, event
