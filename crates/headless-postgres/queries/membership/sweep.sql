select freed from {schema}.node_sweep()
