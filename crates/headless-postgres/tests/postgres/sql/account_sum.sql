select sum from {schema}.account
