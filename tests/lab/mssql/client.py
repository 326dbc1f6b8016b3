"""Logs in to a TDS server through pymssql (FreeTDS), with the password it reads
from its standard input. Exit status 0: let in; 1: refused, and the server's
error number is told; 2: nobody knows.

Arguments: address, port, login.
"""

import sys

import pymssql

address, port, login = sys.argv[1:4]
password = sys.stdin.buffer.read().decode()
try:
    pymssql.connect(server=address, port=port, user=login, password=password, database="",
                    login_timeout=20, tds_version="7.4", encryption="require", autocommit=True).close()
except pymssql.OperationalError as wrong:
    number = wrong.args[0][0] if wrong.args and isinstance(wrong.args[0], tuple) else 0
    print(number, wrong)
    sys.exit(1 if number in (18456, 18470, 18486, 18487, 18488) else 2)
