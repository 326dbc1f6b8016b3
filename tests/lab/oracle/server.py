"""A stand-in for Oracle Database 19c, for no real one can be had where these
tests run.

It speaks Oracle Net (TNS) and the two-task protocol (TTC) on TCP and on TLS as
far as a log-in, a change of password and a few statements need them: the real
exchange of a 12c verifier (PBKDF2 with SHA-512, AES-256), a new password inside
that exchange or by the call of OCIPasswordChange, ALTER USER, and SELECTs of
whole columns of the views in database.py. Oracle's own two thin drivers, the
one for Python and the one for Rust, are its clients in the tests. Two things it
only demands and cannot do, so that a client's end of them is seen: network
encryption without TLS, and the verifiers of 11g.

What it proves: that a client does on the wire what Oracle's drivers do, which
password it sends in which way, and what it makes of each answer. What it does
not prove: that a real server takes these statements in all of its versions;
which of several errors a real one tells first; what its audit trail and traces
keep; network encryption without TLS, wallets with keys, Kerberos and
directories, proxies and pools, container databases, RAC and redirection.

Its truth table is cited in database.py, its grammar in sql.py; the listener's
refusals 12505 and 12514 and TCPS are "Net Services Administrator's Guide".
Where the documents are silent it is our reading: a lock is told before the
password is judged, 01031 before 01918 (dbeaver's issue 35637 shows it), 00988
for a new password that is too long and comes without a statement, a refused
REPLACE counts as no failed log-in, an unquoted log-in name that is no ordinary
name fits no user, a second change keeps the oldest password in the rollover.

Arguments: address, port, TLS port, certificate, key, control socket, file of
the database. Commands arrive at the control socket as one JSON object a line,
each is answered with one line.
"""

import json
import os
import re
import socket
import ssl
import struct
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import sql  # noqa: E402
import wire  # noqa: E402
from database import Database, User  # noqa: E402
from sql import Refused  # noqa: E402

SERVICE, SID = "LAB.TEST", "LAB"
# Where something may go wrong.
CHANGE, LOG_IN, QUERY = "change", "login", "query"
WHAT_MAY_GO_WRONG = {"at": (CHANGE, LOG_IN, QUERY), "moment": ("before", "after"),
                     "how": ("cut", "hang", "delay", "error")}


class Cut(Exception):
    """The connection ends without a word."""


class Faults:
    """What shall go wrong next, told by the lab: where, how, and how often."""

    def __init__(self):
        self.planned = []

    def at(self, place, moment):
        for fault in self.planned:
            if fault["at"] == place and fault["moment"] == moment:
                fault["times"] -= 1
                if not fault["times"]:
                    self.planned.remove(fault)
                return fault
        return None


class Session:
    """One connection, from its first packet to its last."""

    def __init__(self, server, connection):
        self.server, self.database = server, server.database
        self.packets = wire.Packets(connection)
        self.connection = connection
        self.user, self.key, self.asked = None, None, None
        self.cursors = {}

    # Packets and messages.

    def serve(self):
        if not self.greet():
            return
        pending = b""
        while True:
            kind, flags, body = self.packets.read()
            if kind == wire.MARKER:
                continue
            if kind != wire.DATA or flags & wire.END_OF_FILE:
                return
            pending += body
            try:
                reader = wire.Reader(pending)
                self.message(reader)
            except wire.More:
                continue
            pending = b""

    def greet(self):
        kind, _, body = self.packets.read()
        if kind != wire.CONNECT:
            return False
        length, offset = struct.unpack(">HH", body[16:20])
        said = body[offset - 8:offset - 8 + length]
        if len(said) < length:
            _, _, said = self.packets.read()
        refusal = refused_by_listener(said.decode())
        if refusal:
            log(f"listener refused: {refusal}")
            self.packets.send(wire.REFUSE, wire.refuse(refusal))
            return False
        self.packets.send(wire.ACCEPT, wire.accept(self.database.encryption_required))
        self.packets.long = True
        return True

    def message(self, reader):
        """Answers one message. It is the client that ends the connection, after a log-off, too."""
        kind = reader.byte()
        if kind == wire.PROTOCOL:
            self.packets.send_data(wire.protocol())
            return
        if kind == wire.DATA_TYPES:
            self.packets.send_data(bytes([wire.DATA_TYPES, 0, 0]))
            return
        while kind == wire.PIGGYBACK:
            skip_piggyback(reader)
            kind = reader.byte()
        if kind != wire.FUNCTION:
            raise ConnectionError("no function")
        function = reader.byte()
        reader.byte()
        if function not in (wire.ASK_TO_AUTHENTICATE, wire.AUTHENTICATE) and self.user is None:
            raise ConnectionError("not logged in")
        try:
            self.packets.send_data(self.call(function, reader))
        except Refused as refused:
            self.packets.break_off()
            self.packets.send_data(wire.outcome(refused.code, refused.text))

    def call(self, function, reader):
        if function == wire.ASK_TO_AUTHENTICATE:
            return self.challenge(reader)
        if function == wire.AUTHENTICATE:
            return self.authenticate(reader)
        if function == wire.EXECUTE:
            return self.execute(reader)
        if function in (wire.REEXECUTE, wire.REEXECUTE_AND_FETCH):
            return self.execute_again(reader)
        if function == wire.FETCH:
            return wire.outcome(1403, "no data found", cursor=reader.number())
        if function in (wire.PING, wire.COMMIT, wire.ROLLBACK, wire.LOGOFF):
            return wire.outcome()
        raise Refused(3115, "unsupported network datatype or representation")

    def guarded(self, place, work):
        """Does a piece of work under the server's lock, with the faults that were planned for it."""
        self.suffer(place, "before")
        try:
            with self.server.lock:
                done = work()
        except Refused:
            self.suffer(place, "after")
            raise
        self.suffer(place, "after")
        return done

    def suffer(self, place, moment):
        with self.server.lock:
            fault = self.server.faults.at(place, moment)
        if fault is None:
            return
        log(f"fault {moment} {place}: {fault['how']}")
        if fault["how"] == "cut":
            raise Cut
        if fault["how"] == "hang":
            while self.connection.recv(4096):
                pass
            raise Cut
        if fault["how"] == "delay":
            threading.Event().wait(fault["seconds"])
            return
        raise Refused(fault["code"], fault["text"])

    # Logging in.

    def pairs(self, reader):
        """Who speaks, in which mode, and what is told."""
        reader.byte()
        reader.number()
        mode = reader.number()
        reader.byte()
        count = reader.number()
        reader.raw(2)
        who = reader.short_bytes().decode()
        told = {}
        for _ in range(count):
            key, content = reader.bytes().decode(), reader.bytes().decode()
            reader.number()
            told[key] = content
        return who, mode, told

    def challenge(self, reader):
        who, _, _ = self.pairs(reader)
        name = sql.login_name(who)
        with self.server.lock:
            words = self.database.passwords(name)
        if self.database.old_verifiers:
            old = [("AUTH_SESSKEY", os.urandom(48).hex().upper(), 0),
                   ("AUTH_VFR_DATA", os.urandom(10).hex().upper(), wire.KIND_BEFORE)]
            return wire.parameters(old) + wire.outcome()
        salt, salt_of_session = os.urandom(16), os.urandom(16)
        # A name that nobody has is asked like any other.
        kept = [wire.verifier(word, salt) for word in words] or [os.urandom(32)]
        hidden = wire.encrypt(kept[0], os.urandom(32))
        self.asked = name, who, words, kept, hidden, salt_of_session
        answer = [("AUTH_SESSKEY", hidden, 0), ("AUTH_VFR_DATA", salt, wire.KIND_OF_VERIFIER),
                  ("AUTH_PBKDF2_CSK_SALT", salt_of_session, 0)]
        rounds = [("AUTH_PBKDF2_VGEN_COUNT", str(wire.ROUNDS), 0),
                  ("AUTH_PBKDF2_SDER_COUNT", str(wire.ROUNDS_OF_SESSION), 0)]
        pairs = [(key, content.hex().upper(), flags) for key, content, flags in answer] + rounds
        return wire.parameters(pairs) + wire.outcome()

    def authenticate(self, reader):
        _, _, told = self.pairs(reader)
        if self.user is not None:
            return self.change_by_call(told)
        if self.asked is None:
            raise Refused(1017, "invalid username/password; logon denied")
        (name, who, words, kept, hidden, salt), self.asked = self.asked, None
        theirs = bytes.fromhex(told["AUTH_SESSKEY"])
        right = False
        for word, verifier in zip(words, kept):
            key = wire.session_key(verifier, hidden, theirs, salt)
            if wire.password_in(key, bytes.fromhex(told["AUTH_PASSWORD"])) == word:
                right, self.key = True, key
                break
        new = self.password_told(told, "AUTH_NEWPASSWORD") if right and "AUTH_NEWPASSWORD" in told else None
        try:
            warned = self.guarded(LOG_IN if new is None else CHANGE, lambda: self.database.log_in(name, right, new))
        except Refused as refused:
            log(f"log-in of {who!r} refused: {refused.code}")
            self.database.refused += refused.code == 1017
            raise
        self.user = name
        log(f"log-in of {who!r}" + (" with a new password" if new is not None else ""))
        facts = {"AUTH_VERSION_STRING": "- Production", "AUTH_VERSION_NO": str(0x130C0000), "AUTH_SESSION_ID": "77",
                 "AUTH_SERIAL_NUM": "4711", "AUTH_SC_DB_DOMAIN": "test", "AUTH_SC_DBUNIQUE_NAME": "lab",
                 "AUTH_SC_SERVICE_NAME": SERVICE.lower(), "AUTH_INSTANCENAME": SID.lower(), "AUTH_DBNAME": SID,
                 "AUTH_MAX_OPEN_CURSORS": "300", "AUTH_MAX_IDEN_LENGTH": str(sql.LONGEST_NAME),
                 "AUTH_SVR_RESPONSE": wire.proof(self.key)}
        pairs = [(key, content, 0) for key, content in facts.items()]
        return wire.parameters(pairs) + (wire.warning(*warned) if warned else b"") + wire.outcome()

    def password_told(self, told, key):
        return wire.password_in(self.key, bytes.fromhex(told[key])) or ""

    def change_by_call(self, told):
        old, new = self.password_told(told, "AUTH_PASSWORD"), self.password_told(told, "AUTH_NEWPASSWORD")
        what = f"change of its password by {self.user!r}"
        try:
            self.guarded(CHANGE, lambda: self.database.change_by_call(self.user, old, new))
        except Refused as refused:
            log(f"{what} refused: {refused.code}")
            raise
        log(what)
        return wire.parameters([]) + wire.outcome()

    # Statements.

    def execute(self, reader):
        options, cursor = reader.number(), reader.number()
        reader.byte()
        length = reader.number()
        reader.byte()
        reader.number()
        reader.raw(2)
        for _ in range(3):
            reader.number()
        reader.byte()
        binds = reader.number()
        reader.raw(5)
        reader.byte()
        defines = reader.number()
        reader.number()
        reader.raw(3)
        reader.number()
        reader.byte()
        reader.number()
        reader.number()
        reader.byte()
        reader.number()
        reader.byte()
        # Fields that came with 12.2: a signature, an identity, chunks.
        for _ in range(2):
            reader.byte()
            reader.number()
        reader.raw(2)
        reader.number()
        text = reader.short_bytes().decode() if length else None
        for _ in range(13):
            reader.number()
        for _ in range(defines):
            skip_bind(reader)
        for _ in range(binds):
            skip_bind(reader)
        values = bound(reader, binds)
        if text is None:
            if cursor not in self.cursors:
                raise Refused(1001, "invalid cursor")
            text = self.cursors[cursor][0]
        else:
            cursor = len(self.cursors) + 1
        self.cursors[cursor] = text, binds
        return self.run(text, values, cursor)

    def execute_again(self, reader):
        cursor = reader.number()
        for _ in range(3):
            reader.number()
        if cursor not in self.cursors:
            raise Refused(1001, "invalid cursor")
        text, binds = self.cursors[cursor]
        return self.run(text, bound(reader, binds), cursor)

    def run(self, text, values, cursor):
        with self.server.lock:
            self.database.seen.append({"user": self.user, "text": text})
            self.database.keep()
        statement = sql.Statement(text)
        if statement.take("ALTER", "USER"):
            change = sql.alter_user(statement, self.database.longest)
            what = f"ALTER USER of {change['user']!r} by {self.user!r}"
            try:
                self.guarded(CHANGE, lambda: self.database.alter_user(self.user, change))
            except Refused as refused:
                log(f"{what} refused: {refused.code}")
                raise
            log(what)
            return bytes([wire.PARAMETERS]) + bytes(4) + wire.outcome(cursor=cursor)
        if self.database.administer(self.user, statement):
            return bytes([wire.PARAMETERS]) + bytes(4) + wire.outcome(cursor=cursor)
        if statement.take("SELECT"):
            columns, table = self.guarded(QUERY, lambda: self.database.select(self.user, statement, values))
            return (wire.description(columns) + wire.rows(table) + bytes([wire.PARAMETERS]) + bytes(4)
                    + wire.outcome(1403, "no data found", cursor=cursor, rows=len(table)))
        log("statement not understood")
        raise Refused(900, "invalid SQL statement")


def refused_by_listener(said):
    """Why the listener does not hand a client on: its number, or nothing."""
    def told(what):
        found = re.search(rf"(?i)\(\s*{what}\s*=\s*([^)]*?)\s*\)", said)
        return found.group(1).upper() if found else None

    if told("SERVICE_NAME") is not None:
        return 0 if told("SERVICE_NAME") == SERVICE else 12514
    if told("SID") is not None:
        return 0 if told("SID") == SID else 12505
    return 12504


def skip_piggyback(reader):
    function = reader.byte()
    reader.byte()
    if function == wire.CLOSE_CURSORS:
        reader.byte()
        for _ in range(reader.number()):
            reader.number()
    elif function == wire.SET_ATTRIBUTES:
        reader.raw(2)
        reader.number()
        lengths = []
        for told in (True, True, True, False, None, True, False, False, True):
            reader.byte()
            length = reader.number()
            lengths.append(length if told else 0)
        for length in lengths:
            if length:
                reader.short_bytes()
    else:
        raise ConnectionError(f"piggyback {function}")


def skip_bind(reader):
    """The description of one bound value; all of them are taken for texts."""
    reader.raw(4)
    for _ in range(3):
        reader.number()
    reader.bytes()
    for _ in range(2):
        reader.number()
    reader.byte()
    for _ in range(2):
        reader.number()


def bound(reader, count):
    if not count or reader.byte() != wire.ROW_DATA:
        return []
    return [reader.short_bytes().decode() for _ in range(count)]


def overwrite(properties, to):
    """Sets properties that are there, for a misspelt one would prove nothing."""
    for name, value in to.items():
        properties[name]
        properties[name] = value


class Server:
    def __init__(self, path):
        self.database, self.faults, self.lock = Database(path), Faults(), threading.Lock()

    def command(self, asked):
        """One command of the lab."""
        database, do = self.database, asked["do"]
        if do == "create":
            privileges = ["CREATE SESSION"] + asked.get("privileges", [])
            database.users[asked["user"]] = User(asked["user"], asked["password"], privileges)
        elif do == "drop":
            del database.users[asked["user"]]
        elif do == "set":
            overwrite(vars(database.users[asked["user"]]), asked["to"])
        elif do == "profile":
            overwrite(database.profile, asked["to"])
        elif do == "database":
            overwrite(vars(database), asked["to"])
        elif do == "fault":
            fault = {"times": 1, "moment": "before", **asked["fault"]}
            for key, known in WHAT_MAY_GO_WRONG.items():
                if fault[key] not in known:
                    raise KeyError(fault[key])
            self.faults.planned.append(fault)
            return None
        elif do == "get":
            user = database.users[asked["user"]]
            return {**vars(user), "status": user.status()}
        elif do in ("seen", "changes"):
            return getattr(database, do)
        else:
            raise KeyError(do)
        database.keep()
        return None


def log(line):
    print(line, flush=True)


def control(server, orders):
    while True:
        connection, _ = orders.accept()
        with connection, connection.makefile("rw", encoding="utf-8") as lines:
            for line in lines:
                with server.lock:
                    try:
                        told = {"value": server.command(json.loads(line))}
                    except (KeyError, AttributeError) as wrong:
                        told = {"error": repr(wrong)}
                lines.write(json.dumps(told) + "\n")
                lines.flush()


def listen(server, listener, context):
    while True:
        raw, _ = listener.accept()

        def one(raw=raw):
            with raw:
                try:
                    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connection = context.wrap_socket(raw, server_side=True) if context else raw
                    with connection:
                        Session(server, connection).serve()
                except (OSError, Cut, wire.More, struct.error, KeyError, ValueError) as wrong:
                    log(f"connection ended: {type(wrong).__name__}")

        threading.Thread(target=one, daemon=True).start()


def main():
    address, port, secure_port, certificate, key, path, file = sys.argv[1:8]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Server(file)
    listeners = []
    for at, wrapped in ((port, None), (secure_port, context)):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, int(at)))
        listener.listen(64)
        listeners.append((listener, wrapped))
    # There before anybody is told that we are ready.
    orders = socket.socket(socket.AF_UNIX)
    orders.bind(path)
    orders.listen()
    threading.Thread(target=control, args=(server, orders), daemon=True).start()
    for listener, wrapped in listeners:
        threading.Thread(target=listen, args=(server, listener, wrapped), daemon=True).start()
    log("ready")
    threading.Event().wait()


main()
