select count(*) from {schema}.inbox_give_back(null, null, null, $1, 0, true, null, true)
