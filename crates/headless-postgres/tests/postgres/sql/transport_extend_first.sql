-- As an extension of the first of each delivery does.
begin;
select e.* from {schema}.group_delivery d
cross join {schema}.member_extend(
    d.member, d.grp, array[d.part], array[d.epoch],
    array[int8multirange(int8range(lower(d.places), lower(d.places) + 1))], interval '2 hours'
) e
