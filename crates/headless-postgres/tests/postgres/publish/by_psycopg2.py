"""Publishes from Python, in transactions of its own: three that commit, and one between them that does not."""

import json
import sys

import psycopg2
from psycopg2.extras import Json

url, schema = sys.argv[1:]
connection = psycopg2.connect(url)


def publish(cursor, payload):
    cursor.execute(
        f"select {schema}.publish(%s, %s, key => %s, headers => %s)",
        ("notes.noted", payload, "k", Json({"by": "python"})),
    )
    return cursor.fetchone()[0]


def committed(payload):
    with connection, connection.cursor() as cursor:
        print(publish(cursor, payload))


committed(Json({"text": "a dictionary"}))
with connection.cursor() as cursor:
    publish(cursor, Json({"text": "rolled back"}))
    connection.rollback()
committed(json.dumps({"text": "a text"}))
committed(psycopg2.Binary(json.dumps({"text": "bytes"}).encode()))
connection.close()
