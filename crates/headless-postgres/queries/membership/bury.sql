select * from {schema}.node_bury()
