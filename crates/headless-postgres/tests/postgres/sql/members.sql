select (select count(*) from {schema}.group_member) as members,
    (select count(*) from {schema}.group_part where holder is not null) as held
