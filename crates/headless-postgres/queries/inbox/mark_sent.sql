-- Sent together with BEGIN, which takes no parameters: the client puts in literals, of arrays and a number, where the quoted
-- word stands.
select {schema}.inbox_mark('{arguments}')
