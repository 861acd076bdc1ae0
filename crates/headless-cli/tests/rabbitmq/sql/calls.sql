-- Each call of a handler that came as far as its row took a number, whatever became of its transaction: numbers are not given back.
select last_value as calls from {schema}.handled_position_seq
