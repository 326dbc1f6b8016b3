"""Logs in to an Oracle Database through Oracle's own thin driver for Python and
does one thing there.

Reads JSON objects from its standard input, one a line, for there are passwords
in them: `connect` (a connect string), `user`, `password`; perhaps `ca` (a file,
for TLS), `new` (a password to be set within the log-in), `call` (a password to
be set by the call for that), `old` (the old one that the call tells, the
session's own unless given), `statement` and `binds`. Answers each with one:
`code` (of the error, or nothing), `text`, `warning`, `rows`.
"""

import json
import ssl
import sys

import oracledb


def answer(asked):
    told = {"code": None, "text": None, "warning": None, "rows": None}
    context = ssl.create_default_context(cafile=asked["ca"]) if asked.get("ca") else None
    try:
        with oracledb.connect(user=asked["user"], password=asked["password"], dsn=asked["connect"],
                              ssl_context=context, newpassword=asked.get("new"), retry_count=0,
                              tcp_connect_timeout=20) as connection:
            told["warning"] = connection.warning and connection.warning.full_code
            if asked.get("call"):
                connection.changepassword(asked.get("old", asked["password"]), asked["call"])
            if asked.get("statement"):
                with connection.cursor() as cursor:
                    cursor.execute(asked["statement"], asked.get("binds", []))
                    told["rows"] = cursor.fetchall() if cursor.description else None
            connection.ping()
    except oracledb.Error as wrong:
        told["code"], told["text"] = wrong.args[0].full_code, wrong.args[0].message
    return told


for line in sys.stdin:
    try:
        told = answer(json.loads(line))
    except Exception as wrong:
        told = {"wrong": repr(wrong)}
    print(json.dumps(told, default=str), flush=True)
