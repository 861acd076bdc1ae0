-- Sent together with BEGIN: see prepare_marks.sql. The client puts in literals where the quoted word stands.
execute headless_mark_one('{arguments}')
