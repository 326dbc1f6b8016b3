"""What the stand-in understands of Oracle's SQL: one statement that changes
something, ALTER USER, and SELECTs of whole columns from a few views.

Tokens and names: "SQL Language Reference", chapters "Basic Elements of Oracle
SQL" (literals, comments) and "Database Object Names and Qualifiers": a quoted
name keeps its case and holds anything but a double quotation mark and NUL, an
unquoted one is folded to upper case. A password is written like a name, but
never folded ("Security Guide", "Minimum Requirements for Passwords").
"""


class Refused(Exception):
    """An error of the server: its number and its text."""

    def __init__(self, code, text):
        super().__init__(code, text)
        self.code, self.text = code, text


class Token:
    def __init__(self, kind, text):
        self.kind, self.text = kind, text

    def is_word(self, word):
        return self.kind == "word" and self.text.upper() == word


LONGEST_NAME = 128
STARTS = str.isalpha


def continues(character):
    return character.isalnum() or character in "_$#"


def tokens(text):
    out, at = [], 0
    while at < len(text):
        character = text[at]
        if character.isspace():
            at += 1
        elif text.startswith("--", at):
            at = (text.find("\n", at) + 1) or len(text)
        elif text.startswith("/*", at):
            end = text.find("*/", at + 2)
            if end < 0:
                raise Refused(1742, "comment not terminated properly")
            at = end + 2
        elif character == '"':
            end = text.find('"', at + 1)
            if end < 0:
                raise Refused(1740, "missing double quote in identifier")
            if end == at + 1:
                raise Refused(1741, "illegal zero-length identifier")
            if "\0" in text[at:end]:
                raise Refused(911, "invalid character")
            out.append(Token("quoted", text[at + 1:end]))
            at = end + 1
        elif character == "'":
            content, at = [], at + 1
            while True:
                end = text.find("'", at)
                if end < 0:
                    raise Refused(1756, "quoted string not properly terminated")
                content.append(text[at:end])
                at = end + 1
                if not text.startswith("'", at):
                    break
                content.append("'")
                at += 1
            out.append(Token("string", "".join(content)))
        elif STARTS(character) or character in ":0123456789":
            kind = "bind" if character == ":" else "word" if STARTS(character) else "number"
            end = at + 1
            while end < len(text) and continues(text[end]):
                end += 1
            out.append(Token(kind, text[at:end]))
            at = end
        elif character in "=,*().":
            out.append(Token(character, character))
            at += 1
        else:
            raise Refused(911, "invalid character")
    return out


class Statement:
    """The tokens of one statement, taken one by one."""

    def __init__(self, text):
        self.rest = tokens(text)

    def take(self, *words):
        """Takes these words, all of them or none."""
        ahead = self.rest[:len(words)]
        if len(ahead) < len(words) or not all(token.is_word(word) for token, word in zip(ahead, words)):
            return False
        self.rest = self.rest[len(words):]
        return True

    def next(self, *kinds):
        if self.rest and self.rest[0].kind in kinds:
            return self.rest.pop(0)
        return None


def name_of(token, absent):
    if token is None:
        raise absent
    if len(token.text.encode()) > LONGEST_NAME:
        raise Refused(972, "identifier is too long")
    return token.text if token.kind == "quoted" else token.text.upper()


def login_name(given):
    """The user a client means that logs in under this name: folded, unless quoted."""
    if len(given) > 2 and given[0] == given[-1] == '"':
        return given[1:-1]
    ordinary = given[:1].isalpha() and all(continues(character) for character in given)
    return given.upper() if ordinary else None


def password_of(statement, longest):
    token = statement.next("word", "quoted")
    if token is None:
        raise Refused(988, "missing or invalid password(s)")
    if len(token.text.encode()) > longest:
        raise Refused(972, "identifier is too long")
    return token.text


def alter_user(statement, longest):
    """What follows ALTER USER, as the changes that are asked for."""
    change = {"user": name_of(statement.next("word", "quoted"), Refused(987, "missing or invalid username(s)")),
              "new": None, "old": None, "account": None, "expire": False, "end_rollover": False}
    while statement.rest:
        if statement.take("IDENTIFIED", "BY"):
            change["new"] = password_of(statement, longest)
            if statement.take("REPLACE"):
                change["old"] = password_of(statement, longest)
        elif statement.take("ACCOUNT", "UNLOCK"):
            change["account"] = "UNLOCK"
        elif statement.take("ACCOUNT", "LOCK"):
            change["account"] = "LOCK"
        elif statement.take("PASSWORD", "EXPIRE"):
            change["expire"] = True
        elif statement.take("EXPIRE", "PASSWORD", "ROLLOVER", "PERIOD"):
            change["end_rollover"] = True
        else:
            raise Refused(922, "missing or invalid option")
    if not any((change["new"], change["account"], change["expire"], change["end_rollover"])):
        raise Refused(922, "missing or invalid option")
    return change


def administration(statement):
    """CREATE USER … IDENTIFIED BY … [PROFILE …], DROP USER …, GRANT words TO …, and
    CREATE or ALTER PROFILE … LIMIT FAILED_LOGIN_ATTEMPTS …, as what, whom and how."""
    def name():
        return name_of(statement.next("word", "quoted"), Refused(987, "missing or invalid username(s)"))

    if statement.take("CREATE", "USER"):
        who = name()
        if not statement.take("IDENTIFIED", "BY"):
            raise Refused(922, "missing or invalid option")
        password = password_of(statement, 1024)
        if statement.take("PROFILE"):
            name()
        return "create", who, password
    if statement.take("DROP", "USER"):
        return "drop", name(), None
    if statement.take("GRANT"):
        words = []
        while not statement.take("TO"):
            word = statement.next("word")
            if word is None:
                raise Refused(990, "missing or invalid privilege")
            words.append(word.text.upper())
        return "grant", name(), " ".join(words)
    if statement.take("CREATE", "PROFILE") or statement.take("ALTER", "PROFILE"):
        which = name()
        if not statement.take("LIMIT", "FAILED_LOGIN_ATTEMPTS"):
            raise Refused(922, "missing or invalid option")
        return "profile", which, statement.next("word", "number").text.upper()
    return None


def select(statement):
    """SELECT columns FROM view [WHERE column = value [AND column = value …]]"""
    columns = []
    while True:
        token = statement.next("word", "quoted", "number", "string")
        if token is None:
            raise Refused(936, "missing expression")
        columns.append(token)
        if not statement.next(","):
            break
    if not statement.take("FROM"):
        raise Refused(923, "FROM keyword not found where expected")
    view = name_of(statement.next("word", "quoted"), Refused(903, "invalid table name"))
    conditions = []
    while statement.take("AND" if conditions else "WHERE"):
        column = name_of(statement.next("word", "quoted"), Refused(936, "missing expression"))
        if not statement.next("="):
            raise Refused(920, "invalid relational operator")
        value = statement.next("string", "bind", "word")
        if value is None:
            raise Refused(936, "missing expression")
        conditions.append((column, value))
    if statement.rest:
        raise Refused(933, "SQL command not properly ended")
    return columns, view, conditions
