select key, value from case_rows order by key
