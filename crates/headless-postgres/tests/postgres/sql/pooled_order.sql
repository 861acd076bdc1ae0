select count(*) as handled, count(distinct number) as distinct, count(*) filter (where number < before) as overtaken
from (select number, lag(number) over (partition by text order by place) as before from {schema}.pooled) p
