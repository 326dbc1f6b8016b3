"""A stand-in for SQL Server, for no real one can be had where these tests run.

It speaks TDS 7.4 (MS-TDS) with TLS inside its packets, or TDS 8.0 with TLS
first, keeps a table of logins, judges passwords like Microsoft documents it,
and understands exactly the statements that turnlock-mssql sends. A client of
somebody else (FreeTDS, through pymssql) logs in to it in every test.

What it does not prove: that a real server takes these statements, in all of its
versions; its policies beyond length, classes and history; what its own log
keeps of a statement; contained databases, Azure's gateway, Windows log-ins;
which of several errors a real server reports first.

Numbers and their meaning: Microsoft, "Database Engine events and errors"
(18456, 18470, 18486 to 18488, 4064, 15114 to 15118, 15128, 15151), "ALTER LOGIN
(Transact-SQL)" for grammar and rights.

Arguments: address, port, certificate, key, control socket. Commands arrive at
the control socket as one JSON object a line, each is answered with one line.
"""

import json
import re
import socket
import ssl
import struct
import sys
import threading

PRELOGIN, LOGIN7, BATCH, REPLY = 0x12, 0x10, 0x01, 0x04
ON, STRICT = 1, 5
VERSION = "16.0.1000.6"


class Login:
    def __init__(self, password, admin=False):
        self.password, self.admin = password, admin
        self.history, self.failures = [password], 0
        self.locked = self.disabled = self.expired = self.must_change = False
        self.policy = self.expiration = self.locks = True
        self.database = "master"


class Server:
    def __init__(self):
        self.logins, self.lock, self.written = {}, threading.Lock(), []
        self.min_length, self.classes, self.remembered, self.threshold = 1, 1, 0, 0

    def refusal_of(self, name, password):
        """Why a log-in fails: number, severity, text; nothing when it does not."""
        login = self.logins.get(name)
        failed = (18456, 14, f"Login failed for user '{name}'.")
        if login is None:
            return failed
        if login.locked:
            return (18486, 14, f"Login failed for user '{name}' because the account is currently locked out. "
                               "The system administrator can unlock it.")
        if password != login.password:
            login.failures += 1
            login.locked = login.locks and bool(self.threshold) and login.failures >= self.threshold
            return failed
        login.failures = 0
        if login.disabled:
            return (18470, 14, f"Login failed for user '{name}'. Reason: The account is disabled.")
        if login.must_change:
            return (18488, 14, f"Login failed for user '{name}'. Reason: The password of the account must be changed.")
        if login.expired:
            return (18487, 14, f"Login failed for user '{name}'. Reason: The password of the account has expired.")
        if login.database is None:
            return (4064, 11, "Cannot open user default database. Login failed.")
        return None

    def alter(self, who, change):
        """What ALTER LOGIN comes to: number, severity, text; nothing when it is made."""
        name, new, old = change["name"], change["new"], change["old"]
        missing = (15151, 16, f"Cannot alter the login '{name}', because it does not exist or you do not have permission.")
        login = self.logins.get(name)
        if login is None:
            return missing
        if old is not None and (who != name or old != login.password):
            return missing
        if old is None and not self.logins[who].admin:
            return missing
        if change["must_change"] and not (login.policy and login.expiration):
            return (15128, 16, "The CHECK_POLICY and CHECK_EXPIRATION options cannot be turned OFF when MUST_CHANGE is ON.")
        if login.locked and not change["unlock"]:
            return (15113, 16, "The login is locked: say UNLOCK.")
        if login.policy:
            if len(new) < self.min_length:
                return (15116, 16, "Password validation failed. The password does not meet the operating system policy "
                                   "requirements because it is too short.")
            kinds = [any(f(c) for c in new) for f in (str.isupper, str.islower, str.isdigit, lambda c: not c.isalnum())]
            if sum(kinds) < self.classes:
                return (15118, 16, "Password validation failed. The password does not meet the operating system policy "
                                   "requirements because it is not complex enough.")
            if new in login.history[-self.remembered:] and self.remembered:
                return (15115, 16, "Password validation failed. The password cannot be used at this time.")
        login.password = new
        login.history.append(new)
        login.must_change, login.expired = change["must_change"], False
        if change["unlock"]:
            login.locked, login.failures = False, 0
        return None


def unquoted(text, opening, closing):
    """The content of a quoted piece at the beginning of a text, and what follows it."""
    if not text.startswith(opening):
        raise ValueError("not quoted")
    content, place = [], len(opening)
    while True:
        end = text.index(closing, place)
        content.append(text[place:end])
        if text.startswith(closing * 2, end):
            content.append(closing)
            place = end + 2
            continue
        return "".join(content), text[end + 1:]


def literal(text):
    content, rest = unquoted(text, "N'", "'")
    # A line break behind a backslash is no part of the literal.
    return re.sub(r"\\\r?\n", "", content), rest


def parse_alter(text):
    """ALTER LOGIN [name] WITH PASSWORD = N'…' [OLD_PASSWORD = N'…'] [MUST_CHANGE] [UNLOCK]"""
    def word(wanted):
        nonlocal text
        text = text.lstrip()
        if text[:len(wanted)].upper() != wanted:
            return False
        text = text[len(wanted):].lstrip()
        return True

    if not word("ALTER"):
        return None
    what = "LOGIN" if word("LOGIN") else "USER" if word("USER") else None
    if what is None:
        return None
    name, text = unquoted(text, "[", "]")
    if not (word("WITH") and word("PASSWORD") and word("=")):
        return None
    new, text = literal(text)
    old = None
    if word("OLD_PASSWORD"):
        if not word("="):
            return None
        old, text = literal(text)
    change = {"what": what, "name": name, "new": new, "old": old, "must_change": word("MUST_CHANGE"), "unlock": word("UNLOCK")}
    return None if text.strip() else change


def read_exactly(read, count):
    data = b""
    while len(data) < count:
        part = read(count - len(data))
        if not part:
            raise ConnectionError("closed")
        data += part
    return data


def read_message(read):
    """All packets of one message: their kind and what they hold."""
    content = b""
    while True:
        kind, status, length = struct.unpack(">BBH", read_exactly(read, 8)[:4])
        content += read_exactly(read, length - 8)
        if status & 1:
            return kind, content


def packets(kind, content):
    out = b""
    size = 4096 - 8
    parts = [content[at:at + size] for at in range(0, len(content), size)] or [b""]
    for number, part in enumerate(parts):
        last = 1 if number == len(parts) - 1 else 0
        out += struct.pack(">BBHHBB", kind, last, len(part) + 8, 0, (number + 1) % 256, 0) + part
    return out


def administer(server, who, text):
    """What the lab does to a real server (real.py), so that it can be tried here: a
    login is made, dropped, given a right, or freed; the log is read."""
    if not server.logins[who].admin:
        return None
    if text == "EXEC sys.sp_readerrorlog 0, 1":
        return rows([[line] for line in server.written])
    for words in ("CREATE LOGIN ", "DROP LOGIN ", "GRANT ALTER ANY LOGIN TO ", "ALTER LOGIN "):
        if not text.startswith(words):
            continue
        name, rest = unquoted(text[len(words):], "[", "]")
        if words.startswith("CREATE"):
            password, rest = literal(rest.removeprefix(" WITH PASSWORD = "))
            server.logins[name] = Login(password)
            server.logins[name].locks = rest == ", CHECK_POLICY = ON"
        elif name not in server.logins:
            return error(15151, 16, f"Cannot find the login '{name}'.") + done(True)
        elif words.startswith("DROP"):
            del server.logins[name]
        elif words.startswith("GRANT"):
            server.logins[name].admin = True
        elif rest in (" WITH CHECK_POLICY = OFF", " WITH CHECK_POLICY = ON"):
            server.logins[name].locked, server.logins[name].failures = False, 0
        else:
            return None
        return done()
    return None


class InPackets:
    """TLS whose handshake travels in packets, and what follows does not."""

    def __init__(self, raw, context):
        self.raw, self.coming, self.going = raw, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.coming, self.going, server_side=True)
        while True:
            try:
                self.tls.do_handshake()
                self.push(PRELOGIN)
                return
            except ssl.SSLWantReadError:
                self.push(PRELOGIN)
                kind, content = read_message(raw.recv)
                if kind != PRELOGIN:
                    raise ConnectionError("no handshake")
                self.coming.write(content)

    def push(self, kind=None):
        data = self.going.read()
        if data:
            self.raw.sendall(packets(kind, data) if kind else data)

    def recv(self, count):
        while True:
            try:
                return self.tls.read(count)
            except ssl.SSLWantReadError:
                data = self.raw.recv(65536)
                if not data:
                    return b""
                self.coming.write(data)
            except ssl.SSLZeroReturnError:
                return b""

    def sendall(self, data):
        self.tls.write(data)
        self.push()


def prelogin_answer(encryption):
    values = [(0, bytes([16, 0, 3, 232, 0, 0])), (1, bytes([encryption])), (2, b"\0"), (3, b""), (4, b"\0")]
    head, body, offset = b"", b"", 5 * len(values) + 1
    for option, value in values:
        head += struct.pack(">BHH", option, offset, len(value))
        body += value
        offset += len(value)
    return packets(REPLY, head + b"\xff" + body)


def short_text(text, width="<H"):
    encoded = text.encode("utf-16-le")
    return struct.pack(width, len(encoded) // 2) + encoded


def error(number, severity, text):
    body = struct.pack("<IBB", number, 1, severity) + short_text(text) + short_text("STANDIN", "<B")
    body += short_text("", "<B") + struct.pack("<I", 1)
    return b"\xaa" + struct.pack("<H", len(body)) + body


def done(failed=False):
    return b"\xfd" + struct.pack("<HHQ", 2 if failed else 0, 0, 0)


def login_ack():
    body = b"\x01" + b"\x74\x00\x00\x04" + short_text("Microsoft SQL Server", "<B") + bytes([16, 0, 3, 232])
    database = short_text("master", "<B")
    change = b"\x01" + database + database
    return (b"\xe3" + struct.pack("<H", len(change)) + change
            + b"\xad" + struct.pack("<H", len(body)) + body + done())


def rows(table, columns=1):
    """Rows of texts, nvarchar(128) each."""
    collation = bytes([9, 4, 0xd0, 0, 0x34])
    out = b"\x81" + struct.pack("<H", columns)
    for _ in range(columns):
        out += struct.pack("<IH", 0, 9) + b"\xe7" + struct.pack("<H", 256) + collation + short_text("", "<B")
    for row in table:
        out += b"\xd1"
        for value in row:
            encoded = None if value is None else value.encode("utf-16-le")
            out += b"\xff\xff" if encoded is None else struct.pack("<H", len(encoded)) + encoded
    return out + b"\xfd" + struct.pack("<HHQ", 0x10, 0xc1, len(table))


def parse_login(content):
    def text(place):
        offset, length = struct.unpack_from("<HH", content, place)
        return content[offset:offset + 2 * length]

    # MS-TDS 2.2.6.4: every byte has its halves swapped, then is combined with A5.
    hidden = bytes(((b ^ 0xA5) << 4 | (b ^ 0xA5) >> 4) & 0xFF for b in text(44))
    return text(40).decode("utf-16-le"), hidden.decode("utf-16-le")


FACTS = re.compile(r"SELECT CONVERT\(nvarchar\(128\), SERVERPROPERTY\('ProductVersion'\)\)")


def answer(server, who, text):
    """What a batch comes to."""
    if FACTS.match(text):
        name, _ = literal(text[text.index("LOGINPROPERTY(") + len("LOGINPROPERTY("):])
        login = server.logins.get(name)
        flag = lambda value: "1" if value else "0"
        seen = login is not None and (name == who or server.logins[who].admin)
        state = [flag(login.locked), flag(login.expired), "40"] if seen else [None, None, None]
        return rows([[VERSION, flag(server.logins[who].admin), *state]], 5)
    administered = administer(server, who, text)
    if administered:
        return administered
    try:
        change = parse_alter(text)
    except (ValueError, IndexError):
        change = None
    if change:
        log(f"ALTER {change['what']} of {change['name']!r} by {who!r}")
        refusal = server.alter(who, change)
        return error(*refusal) + done(True) if refusal else done()
    # What clients say of themselves before they ask anything.
    if re.fullmatch(r"(?is)\s*((SET|USE)\b[^;]*;?\s*)+", text) or text.strip().upper() in ("SELECT 1", ""):
        return done()
    log(f"not understood: {text[:40]!r}")
    return error(102, 15, "Incorrect syntax.") + done(True)


def log(line):
    print(line, flush=True)


def serve(server, raw, contexts):
    first = raw.recv(1, socket.MSG_PEEK)
    strict = first == b"\x16"
    if strict:
        connection = contexts["strict"].wrap_socket(raw, server_side=True)
        kind, _ = read_message(connection.recv)
        connection.sendall(prelogin_answer(STRICT))
    else:
        kind, _ = read_message(raw.recv)
        raw.sendall(prelogin_answer(ON))
        connection = InPackets(raw, contexts["packets"])
    kind, content = read_message(connection.recv)
    if kind != LOGIN7:
        return
    name, password = parse_login(content)
    with server.lock:
        refusal = server.refusal_of(name, password)
    if refusal:
        log(f"log-in of {name!r} refused: {refusal[0]}")
        server.written.append(f"Error: {refusal[0]}, Severity: {refusal[1]}, State: 1.")
        connection.sendall(packets(REPLY, error(*refusal) + done(True)))
        return
    log(f"log-in of {name!r}")
    connection.sendall(packets(REPLY, login_ack()))
    while True:
        kind, content = read_message(connection.recv)
        if kind != BATCH:
            connection.sendall(packets(REPLY, error(4002, 16, "Only batches are understood.") + done(True)))
            continue
        text = content[struct.unpack_from("<I", content)[0]:].decode("utf-16-le")
        with server.lock:
            reply = answer(server, name, text)
        connection.sendall(packets(REPLY, reply))


def command(server, asked):
    """One command of the lab."""
    if asked["do"] == "create":
        server.logins[asked["login"]] = Login(asked["password"], asked.get("admin", False))
    elif asked["do"] == "set":
        login = server.logins[asked["login"]]
        for name, value in asked["to"].items():
            setattr(login, name, value)
    elif asked["do"] == "policy":
        for name, value in asked["to"].items():
            setattr(server, name, value)
    elif asked["do"] == "get":
        return getattr(server.logins[asked["login"]], asked["what"])
    return None


def control(server, listener):
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw", encoding="utf-8") as lines:
            for line in lines:
                with server.lock:
                    try:
                        told = {"value": command(server, json.loads(line))}
                    except (KeyError, AttributeError) as wrong:
                        told = {"error": repr(wrong)}
                lines.write(json.dumps(told) + "\n")
                lines.flush()


def browse(address, port, instance):
    """The SQL Server Browser: tells an instance's port (MC-SQLR 2.2.5)."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((address, 1434))
    while True:
        asked, peer = listener.recvfrom(64)
        if asked[:1] == b"\x04" and asked[1:].rstrip(b"\0").decode().upper() == instance:
            told = f"ServerName;STANDIN;InstanceName;{instance};IsClustered;No;Version;{VERSION};tcp;{port};;".encode()
            listener.sendto(b"\x05" + struct.pack("<H", len(told)) + told, peer)


def main():
    address, port, certificate, key, path = sys.argv[1:6]
    contexts = {}
    for kind in ("packets", "strict"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        contexts[kind] = context
    # Servers speak TLS 1.3 with version 8 of the protocol only.
    contexts["packets"].maximum_version = ssl.TLSVersion.TLSv1_2
    contexts["strict"].set_alpn_protocols(["tds/8.0"])
    server = Server()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, int(port)))
    listener.listen(64)
    # There before anybody is told that we are ready.
    orders = socket.socket(socket.AF_UNIX)
    orders.bind(path)
    orders.listen()
    threading.Thread(target=control, args=(server, orders), daemon=True).start()
    if len(sys.argv) > 6:
        threading.Thread(target=browse, args=(address, port, sys.argv[6]), daemon=True).start()
    log("ready")
    while True:
        raw, _ = listener.accept()

        def one(raw=raw):
            with raw:
                try:
                    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    serve(server, raw, contexts)
                except (OSError, ConnectionError, struct.error, UnicodeDecodeError):
                    pass

        threading.Thread(target=one, daemon=True).start()


main()
