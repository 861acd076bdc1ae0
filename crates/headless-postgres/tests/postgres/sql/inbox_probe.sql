select (select after from {schema}.inbox_probe) as after
