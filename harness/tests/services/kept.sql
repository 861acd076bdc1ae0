select string_agg(word, ',') from kept;
