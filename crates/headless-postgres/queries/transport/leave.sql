select {schema}.member_leave($1)
