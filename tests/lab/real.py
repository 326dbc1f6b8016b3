"""Stands where a stand-in would, before a real server that somebody has.

The lab starts it instead of a stand-in when TURNLOCK_LAB_MSSQL or
TURNLOCK_LAB_ORACLE names a file: {"host", "port", "login", "password"} of an
administrator, for Oracle also "tls_port" and "service". It passes connections
on, so that they can be cut, held and refused, and does with the administrator's
statements what the lab orders at the control socket. What only a stand-in can
be told, it refuses. The server's certificate has to name 127.0.0.1 and to be
signed by the file's "ca".

Arguments: kind of server, the file, address, port, TLS port (or 0), control socket.
"""

import json
import socket
import sys
import threading


class SqlServer:
    """Logins of SQL Server, by FreeTDS. Its own rules lock them, where it has any."""

    def __init__(self, about):
        import pymssql
        self.about, self.module, self.locks = about, pymssql, False

    def execute(self, statement):
        with self.module.connect(server=self.about["host"], port=str(self.about["port"]), user=self.about["login"],
                                 password=self.about["password"], database="", tds_version="7.4",
                                 encryption="require", autocommit=True) as connection:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    @staticmethod
    def name(login):
        return "[" + login.replace("]", "]]") + "]"

    @staticmethod
    def literal(text):
        return "N'" + text.replace("'", "''") + "'"

    def create(self, login, password, privileges):
        try:
            self.execute(f"DROP LOGIN {self.name(login)}")
        except self.module.Error:
            pass  # There was none.
        policy = "ON" if self.locks else "OFF"
        self.execute(f"CREATE LOGIN {self.name(login)} WITH PASSWORD = {self.literal(password)}, CHECK_POLICY = {policy}")
        if privileges:
            self.execute(f"GRANT ALTER ANY LOGIN TO {self.name(login)}")

    def renew(self, login, password):
        self.execute(f"ALTER LOGIN {self.name(login)} WITH PASSWORD = {self.literal(password)}")

    def unlock(self, login):
        if self.locks:
            for policy in ("OFF", "ON"):
                self.execute(f"ALTER LOGIN {self.name(login)} WITH CHECK_POLICY = {policy}")

    def lock_after(self, attempts):
        self.locks = attempts > 0

    def refused(self):
        """How many log-ins were refused, and everything that the server wrote down."""
        lines = [str(row[-1]) for row in self.execute("EXEC sys.sp_readerrorlog 0, 1")]
        return sum("Error: 18456" in line for line in lines), lines


class Oracle:
    """Users of Oracle Database, by Oracle's driver, in a profile of their own."""

    PROFILE = "TURNLOCK_LAB"

    def __init__(self, about):
        import oracledb
        self.about, self.module = about, oracledb

    def execute(self, statement):
        place = f"{self.about['host']}:{self.about['port']}/{self.about['service']}"
        with self.module.connect(user=self.about["login"], password=self.about["password"], dsn=place) as connection:
            with connection.cursor() as cursor:
                cursor.prefetchrows = 100_000
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    def create(self, user, password, privileges):
        try:
            self.execute(f'DROP USER "{user}"')
        except self.module.Error:
            pass  # There was none.
        self.execute(f'CREATE USER "{user}" IDENTIFIED BY "{password}" PROFILE {self.PROFILE}')
        for privilege in ["CREATE SESSION", *privileges]:
            self.execute(f'GRANT {privilege} TO "{user}"')

    def renew(self, user, password):
        self.execute(f'ALTER USER "{user}" IDENTIFIED BY "{password}"')

    def unlock(self, user):
        self.execute(f'ALTER USER "{user}" ACCOUNT UNLOCK')

    def lock_after(self, attempts):
        limit = f"{self.PROFILE} LIMIT FAILED_LOGIN_ATTEMPTS {attempts or 'UNLIMITED'}"
        try:
            self.execute(f"CREATE PROFILE {limit}")
        except self.module.Error:
            self.execute(f"ALTER PROFILE {limit}")

    def refused(self):
        """How many log-ins were refused, and every statement that was written down."""
        rows = self.execute("SELECT return_code, sql_text FROM unified_audit_trail")
        return sum(row[0] == 1017 for row in rows), [str(row[1]) for row in rows if row[1]]


def command(server, asked):
    """One order of the lab, in the words of either stand-in."""
    login = asked.get("login", asked.get("user"))
    if login is not None and login.lower() == server.about["login"].lower():
        raise ValueError("this is the administrator: give the file another one, whose name no test uses")
    if asked["do"] == "create":
        server.create(login, asked["password"], asked.get("privileges") or (["ALTER USER"] if asked.get("admin") else []))
    elif asked["do"] == "set" and not set(asked["to"]) - {"password", "failures", "locked"} and not asked["to"].get("locked"):
        if "password" in asked["to"]:
            server.renew(login, asked["to"]["password"])
        else:
            server.unlock(login)
    elif asked["do"] in ("policy", "profile") and len(asked["to"]) == 1 and {"threshold", "attempts"} & set(asked["to"]):
        server.lock_after(next(iter(asked["to"].values())))
    elif asked["do"] == "database" and set(asked["to"]) == {"longest"}:
        pass  # It has the limit that it has.
    elif asked["do"] == "log":
        count, lines = server.refused()
        return {"refused": count - server.refused_before, "lines": lines[server.lines_before:]}
    else:
        raise ValueError("a real server cannot be told this")
    return None


def control(server, listener):
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw", encoding="utf-8") as lines:
            for line in lines:
                try:
                    told = {"value": command(server, json.loads(line))}
                except Exception as wrong:  # Whatever it was, the test has to hear of it.
                    told = {"error": f"{type(wrong).__name__}: {wrong}"}
                lines.write(json.dumps(told) + "\n")
                lines.flush()


def pass_on(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            end.close()


def forward(listener, target):
    while True:
        near, _ = listener.accept()
        try:
            far = socket.create_connection(target)
        except OSError:
            near.close()
            continue
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=pass_on, args=(one, other), daemon=True).start()


def main():
    kind, file, address, port, tls_port, path = sys.argv[1:7]
    with open(file, encoding="utf-8") as opened:
        about = json.load(opened)
    server = {"mssql": SqlServer, "oracle": Oracle}[kind](about)
    count, lines = server.refused()
    server.refused_before, server.lines_before = count, len(lines)
    places = [(int(port), about["port"])] + ([(int(tls_port), about["tls_port"])] if tls_port != "0" else [])
    for near, far in places:
        listener = socket.create_server((address, near), backlog=64)
        threading.Thread(target=forward, args=(listener, (about["host"], far)), daemon=True).start()
    orders = socket.socket(socket.AF_UNIX)
    orders.bind(path)
    orders.listen()
    print("ready", flush=True)
    control(server, orders)


main()
