"""How Oracle's clients and servers write: packets of TNS, the fields of TTC in
them, and the keys of a log-in. Nothing here knows what a user is.
"""

import hashlib
import os
import struct

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

CONNECT, ACCEPT, REFUSE, DATA, MARKER = 1, 2, 4, 6, 12
BREAK, RESET = 1, 2
END_OF_FILE = 0x40

# Kinds of messages in data packets.
PROTOCOL, DATA_TYPES, FUNCTION, ERROR, ROW_HEADER, ROW_DATA = 1, 2, 3, 4, 6, 7
PARAMETERS, WARNING, DESCRIPTION, PIGGYBACK = 8, 15, 16, 17

# Functions that a client may call.
REEXECUTE, FETCH, LOGOFF, COMMIT, ROLLBACK = 4, 5, 9, 14, 15
REEXECUTE_AND_FETCH, EXECUTE, CLOSE_CURSORS = 78, 94, 105
AUTHENTICATE, ASK_TO_AUTHENTICATE, SET_ATTRIBUTES, PING = 115, 118, 135, 147

VERSION_OF_TNS, SIZE_OF_PACKETS = 318, 8192
VERSION_OF_FIELDS = 12
UTF8, UTF16 = 873, 2000
VARCHAR, NUMBER, DATE = 1, 2, 12


class More(Exception):
    """A message goes on in the next packet."""


class Packets:
    """The packets of one connection."""

    def __init__(self, connection):
        self.connection, self.long = connection, False

    def read_exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.connection.recv(count - len(data))
            if not part:
                raise ConnectionError("closed")
            data += part
        return data

    def read(self):
        """One packet: its kind, its data flags, what it holds."""
        head = self.read_exactly(8)
        if not self.long and head[:2] == b"\x16\x03":
            raise ConnectionError("TLS where none is spoken")
        length = struct.unpack(">I", head[:4])[0] if self.long else struct.unpack(">H", head[:2])[0]
        body = self.read_exactly(length - 8)
        if head[4] == DATA:
            return DATA, struct.unpack(">H", body[:2])[0], body[2:]
        return head[4], 0, body

    def send(self, kind, body):
        size = len(body) + 8
        head = struct.pack(">I", size) if self.long else struct.pack(">HH", size, 0)
        self.connection.sendall(head + bytes([kind, 0, 0, 0]) + body)

    def send_data(self, message):
        room = SIZE_OF_PACKETS - 10
        for at in range(0, len(message), room):
            self.send(DATA, b"\0\0" + message[at:at + room])

    def break_off(self):
        """What precedes an error: the server's break, and a reset from each side."""
        self.send(MARKER, bytes([1, 0, BREAK]))
        while True:
            kind, _, body = self.read()
            if kind == MARKER and body[2] == RESET:
                break
        self.send(MARKER, bytes([1, 0, RESET]))


class Reader:
    """Reads the fields of a message."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, count):
        if self.at + count > len(self.data):
            raise More
        self.at += count
        return self.data[self.at - count:self.at]

    def byte(self):
        return self.raw(1)[0]

    def number(self):
        return int.from_bytes(self.raw(self.byte() & 0x7F), "big")

    def short_bytes(self):
        length = self.byte()
        if length == 255:
            return b""
        if length != 254:
            return self.raw(length)
        content = b""
        while chunk := self.number():
            content += self.raw(chunk)
        return content

    def bytes(self):
        """Bytes that tell their length twice."""
        return self.short_bytes() if self.number() else b""


def number(value):
    encoded = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(encoded)]) + encoded


def short_bytes(content):
    if len(content) <= 252:
        return bytes([len(content)]) + content
    chunks = [content[at:at + 32767] for at in range(0, len(content), 32767)]
    return b"\xfe" + b"".join(number(len(chunk)) + chunk for chunk in chunks) + b"\0"


def long_bytes(content):
    return number(len(content)) + (short_bytes(content) if content else b"")


def accept(encryption_required):
    flags = 0x10 if encryption_required else 0x04
    return (struct.pack(">HHHHHHHB", VERSION_OF_TNS, 0, SIZE_OF_PACKETS, 65535, 1, 0, 45, flags) + bytes(9)
            + struct.pack(">IIBI", SIZE_OF_PACKETS, 65535, 0, 0))


def refuse(code):
    text = f"(DESCRIPTION=(TMP=)(VSNNUM=318963712)(ERR={code})(ERROR_STACK=(ERROR=(CODE={code})(EMFI=4))))".encode()
    return b"\x22\0" + struct.pack(">H", len(text)) + text


def protocol():
    compiled, running = bytearray(45), bytearray(11)
    compiled[7] = VERSION_OF_FIELDS
    running[0], running[6] = 2, 4
    description = bytes(9) + struct.pack(">H", UTF16)
    return (bytes([PROTOCOL, 6, 0]) + b"x86_64/Linux 2.4.xx\0" + struct.pack("<HBH", UTF8, 1, 0)
            + struct.pack(">H", len(description)) + description
            + short_bytes(bytes(compiled)) + short_bytes(bytes(running)))


def outcome(code=0, text="", cursor=0, rows=0):
    """How a call ended, also when it ended well."""
    message = f"ORA-{code:05}: {text}\n".encode() if code else b""
    return (bytes([ERROR]) + number(1) + number(1) + number(rows) + number(code & 0xFFFF) + number(0) * 2
            + number(cursor) + number(0) + bytes(6)
            + number(0) * 2 + b"\0" + number(0) * 2 + number(0) + bytes(2) + number(0) * 6
            + number(code) + number(rows) + (short_bytes(message) if code else b""))


def warning(code, text):
    message = f"ORA-{code:05}: {text}\n".encode()
    return bytes([WARNING]) + number(code) + number(len(message)) + number(0) + short_bytes(message)


def parameters(pairs):
    out = bytes([PARAMETERS]) + number(len(pairs))
    for key, value, flags in pairs:
        out += long_bytes(key.encode()) + long_bytes(value.encode()) + number(flags)
    return out


def column(place, name, kind, size):
    characters = kind == VARCHAR
    encoded = name.encode()
    return (bytes([kind, 0, 0, 0]) + number(size) + number(0) * 2 + number(0) * 2
            + number(UTF8 if characters else 0) + bytes([1 if characters else 0]) + number(size if characters else 0)
            + number(0) + b"\x01" + bytes([len(encoded)]) + long_bytes(encoded) + number(0) * 2
            + number(place) + number(0))


def description(columns):
    """What the rows of an answer look like; columns are names with their kinds."""
    sizes = {VARCHAR: 4000, NUMBER: 22, DATE: 7}
    out = bytes([DESCRIPTION]) + short_bytes(bytes(7)) + number(4000) + number(len(columns)) + b"\x01"
    for place, (name, kind) in enumerate(columns, 1):
        out += column(place, name, kind, sizes[kind])
    return out + number(0) * 6


def value(content):
    """A text, a whole number from 0 on, a date as (year, month, day), or nothing."""
    if content is None or content == "":
        return b"\0"
    if isinstance(content, str):
        return short_bytes(content.encode())
    if isinstance(content, int):
        return number_value(content)
    year, month, day = content
    return bytes([7, year // 100 + 100, year % 100 + 100, month, day, 1, 1, 1])


def number_value(whole):
    """An exponent and digits to the base of 100, without those that are 0 at the end."""
    digits = []
    while whole:
        whole, digit = divmod(whole, 100)
        digits.insert(0, digit + 1)
    exponent = len(digits)
    while digits and digits[-1] == 1:
        digits.pop()
    return short_bytes(bytes([0xC0 + exponent, *digits]) if digits else b"\x80")


def rows(table):
    out = b""
    for row in table:
        out += bytes([ROW_HEADER]) + bytes(7) if not out else b""
        out += bytes([ROW_DATA]) + b"".join(value(content) for content in row)
    return out


# The keys of a log-in with the verifier of 12c: what the server keeps of a
# password, and what both sides make of it and of each other's random halves.

ROUNDS, ROUNDS_OF_SESSION, KIND_OF_VERIFIER, KIND_BEFORE = 4096, 3, 0x4815, 0x1B25


def verifier(password, salt):
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt + b"AUTH_PBKDF2_SPEEDY_KEY", ROUNDS, 64)
    return hashlib.sha512(key + salt).digest()[:32]


def encrypt(key, plain):
    cipher = Cipher(algorithms.AES(key), modes.CBC(bytes(16))).encryptor()
    return cipher.update(plain) + cipher.finalize()


def decrypt(key, hidden):
    cipher = Cipher(algorithms.AES(key), modes.CBC(bytes(16))).decryptor()
    return cipher.update(hidden) + cipher.finalize()


def padded(plain):
    missing = 16 - len(plain) % 16
    return plain + bytes([missing]) * missing


def session_key(kept, hidden_of_server, hidden_of_client, salt):
    ours, theirs = decrypt(kept, hidden_of_server), decrypt(kept, hidden_of_client)
    both = (theirs + ours).hex().upper().encode()
    return hashlib.pbkdf2_hmac("sha512", both, salt, ROUNDS_OF_SESSION, 32)


def password_in(key, hidden):
    """A password as it travels: behind sixteen random bytes, padded; nothing if it is none."""
    plain = decrypt(key, hidden)[16:]
    missing = plain[-1] if plain else 0
    if not 1 <= missing <= 16 or plain[-missing:] != bytes([missing]) * missing:
        return None
    try:
        return plain[:-missing].decode()
    except UnicodeDecodeError:
        return None


def proof(key):
    """By which a client sees that the server knew the password, too."""
    return encrypt(key, padded(os.urandom(16) + b"SERVER_TO_CLIENT")).hex().upper()
