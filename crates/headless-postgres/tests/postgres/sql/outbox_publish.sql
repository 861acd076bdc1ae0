savepoint one; select {schema}.publish('orders', 'x'); release savepoint one
