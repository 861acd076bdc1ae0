select {schema}.send_foreign('orders', 'late')
