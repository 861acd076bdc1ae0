begin; set local headless.wake = off; select {schema}.publish('orders', 'x'); prepare transaction 'headless late'
