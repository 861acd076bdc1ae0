select 'up';
