"""The users of the stand-in and what may be done to them.

The truth table, from Oracle's documents (Database 19c): "Database Error
Messages" for 00942, 01017, 01031, 01045, 01918, 12505, 12514, 16000, 28000 to
28003, 28007, 28008, 28221; "SQL Language Reference", ALTER USER (who may change
whose password; REPLACE is compared only when one changes one's own) and CREATE
PROFILE (FAILED_LOGIN_ATTEMPTS, PASSWORD_REUSE_MAX, PASSWORD_VERIFY_FUNCTION,
PASSWORD_ROLLOVER_TIME); "Security Guide", "Minimum Requirements for Passwords"
(at most 30 bytes) and "Managing Gradual Database Password Rollover"; "Database
Reference" for the names of views, columns and states of accounts.
"""

import json
import os

import sql
from sql import Refused
from wire import DATE, NUMBER, VARCHAR

VERSION = "19.12.0.0.0"
OPEN_UNTIL, EXPIRED_SINCE = (2099, 1, 31), (2020, 1, 31)


class User:
    """One row of DBA_USERS, and the password."""

    def __init__(self, name, password, privileges):
        self.name, self.password, self.privileges = name, password, privileges
        self.rolled_over, self.history, self.failures = None, [password], 0
        self.locked = None      # LOCKED, LOCKED(TIMED)
        self.expired = None     # EXPIRED, EXPIRED(GRACE)

    def status(self):
        words = [word for word in (self.expired, self.locked) if word] or ["OPEN"]
        return " & ".join(words + (["IN ROLLOVER"] if self.rolled_over else []))

    def may(self, privilege):
        return privilege in self.privileges


class Database:
    def __init__(self, path):
        self.path, self.users, self.seen, self.changes = path, {}, [], []
        self.read_only, self.longest, self.refused = False, 30, 0
        self.encryption_required, self.old_verifiers = False, False
        self.profile = {"attempts": 10, "remembered": 0, "verify": None, "rollover": False}
        if os.path.exists(path):
            self.recall()

    # What a database keeps when it is stopped.

    def keep(self):
        kept = {"read_only": self.read_only, "refused": self.refused, "longest": self.longest, "profile": self.profile,
                "encryption_required": self.encryption_required, "old_verifiers": self.old_verifiers,
                "seen": self.seen, "changes": self.changes, "users": [vars(user) for user in self.users.values()]}
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            json.dump(kept, file)
        os.replace(self.path + ".new", self.path)

    def recall(self):
        with open(self.path, encoding="utf-8") as file:
            kept = json.load(file)
        for row in kept.pop("users"):
            user = User(row["name"], row["password"], row["privileges"])
            vars(user).update(row)
            self.users[user.name] = user
        vars(self).update(kept)

    # Logging in.

    def passwords(self, name):
        """The passwords that let a user in: one, or two while the old one is phased out."""
        user = self.users.get(name)
        return [word for word in (user.password, user.rolled_over) if word] if user else []

    def log_in(self, name, right, new):
        """Lets a user in, perhaps with a new password, and returns a warning if there is one."""
        user = self.users.get(name)
        if user is None:
            raise Refused(1017, "invalid username/password; logon denied")
        if user.locked:
            raise Refused(28000, "the account is locked")
        if not right:
            user.failures += 1
            if self.profile["attempts"] and user.failures >= self.profile["attempts"]:
                user.locked = "LOCKED(TIMED)"
            self.keep()
            raise Refused(1017, "invalid username/password; logon denied")
        user.failures = 0
        if not user.may("CREATE SESSION"):
            raise Refused(1045, f"user {name} lacks CREATE SESSION privilege; logon denied")
        if new is not None:
            self.check_length(new)
            self.renew(user, new, "login", name)
            return None
        if user.expired == "EXPIRED":
            raise Refused(28001, "the password has expired")
        if user.expired:
            return 28002, "the password will expire within 7 days"
        return None

    # Changing passwords.

    def check_length(self, new):
        if not new or len(new.encode()) > self.longest:
            raise Refused(988, "missing or invalid password(s)")

    def renew(self, user, new, way, by):
        """Judges a new password by the user's profile, and sets it."""
        try:
            if self.read_only:
                raise Refused(16000, "database or pluggable database open for read-only access")
            if self.profile["remembered"] and new in user.history[-self.profile["remembered"]:]:
                raise Refused(28007, "the password cannot be reused")
            rule = self.profile["verify"]
            if rule and len(new) < rule["length"]:
                raise Refused(28003, "password verification for the specified password failed\n"
                                     f"ORA-20001: Password length less than {rule['length']}")
            if rule and not all(any(test(c) for c in new) for test in (str.isupper, str.islower, str.isdigit)):
                raise Refused(28003, "password verification for the specified password failed\n"
                                     "ORA-20001: Password must contain an upper-case letter, a lower-case letter "
                                     "and a digit")
        except Refused as refused:
            self.note(by, user.name, way, refused.code)
            raise
        # A second change while the first is phased out keeps the oldest of the three.
        user.rolled_over = (user.rolled_over or user.password) if self.profile["rollover"] else None
        user.password, user.expired = new, None
        user.history.append(new)
        self.note(by, user.name, way, 0)

    def note(self, by, user, way, code):
        self.changes.append({"by": by, "user": user, "way": way, "code": code})
        self.keep()

    def change_by_call(self, name, old, new):
        """The call that changes the password of the session's own user."""
        user = self.users[name]
        if old not in self.passwords(name):
            self.note(name, name, "call", 28008)
            raise Refused(28008, "invalid old password")
        self.check_length(new)
        self.renew(user, new, "call", name)

    def alter_user(self, by, change):
        name, own = change["user"], by == change["user"]
        me, user = self.users[by], self.users.get(change["user"])
        try:
            more = change["account"] or change["expire"] or change["end_rollover"]
            if not me.may("ALTER USER") and (more or not own):
                raise Refused(1031, "insufficient privileges")
            if user is None:
                raise Refused(1918, f"user '{name}' does not exist")
            if self.read_only:
                raise Refused(16000, "database or pluggable database open for read-only access")
            if change["new"] and own and change["old"] is None and self.profile["verify"] and not me.may("ALTER USER"):
                raise Refused(28221, "REPLACE not specified")
            if change["new"] and own and change["old"] is not None and change["old"] not in self.passwords(name):
                raise Refused(28008, "invalid old password")
        except Refused as refused:
            self.note(by, name, "sql", refused.code)
            raise
        if change["new"]:
            self.renew(user, change["new"], "sql", by)
        if change["account"] == "UNLOCK":
            user.locked, user.failures = None, 0
        if change["account"] == "LOCK":
            user.locked = "LOCKED"
        if change["expire"]:
            user.expired = "EXPIRED"
        if change["end_rollover"]:
            user.rolled_over = None
        self.keep()

    # What the lab does to a real server (real.py), so that it can be tried here.

    def administer(self, by, statement):
        """CREATE USER, DROP USER, GRANT and a profile's one limit; false for anything else."""
        asked = sql.administration(statement)
        if asked is None:
            return False
        if not self.users[by].may("ALTER USER"):
            raise Refused(1031, "insufficient privileges")
        do, name, value = asked
        if do == "profile":
            self.profile["attempts"] = 0 if value == "UNLIMITED" else int(value)
        elif do == "create":
            self.users[name] = User(name, value, [])
        elif name not in self.users:
            raise Refused(1918, f"user '{name}' does not exist")
        elif do == "drop":
            del self.users[name]
        else:
            self.users[name].privileges.append(value)
        self.keep()
        return True

    # Statements.

    def view(self, by, name):
        """The kinds of a view's columns, and its rows."""
        me = self.users[by]
        about = {"USERNAME": VARCHAR, "ACCOUNT_STATUS": VARCHAR, "LOCK_DATE": DATE, "EXPIRY_DATE": DATE}
        more = {"PROFILE": VARCHAR, "AUTHENTICATION_TYPE": VARCHAR}

        def row(user):
            expires = EXPIRED_SINCE if user.expired == "EXPIRED" else OPEN_UNTIL
            return {"USERNAME": user.name, "ACCOUNT_STATUS": user.status(), "EXPIRY_DATE": expires, "PROFILE": "DEFAULT",
                    "LOCK_DATE": EXPIRED_SINCE if user.locked else None, "AUTHENTICATION_TYPE": "PASSWORD"}

        if name == "DUAL":
            return {"DUMMY": VARCHAR}, [{"DUMMY": "X"}]
        if name == "USER_USERS":
            return about, [row(me)]
        if name == "DBA_USERS" and me.may("SELECT ANY DICTIONARY"):
            return {**about, **more}, [row(user) for user in self.users.values()]
        if name == "SESSION_PRIVS":
            return {"PRIVILEGE": VARCHAR}, [{"PRIVILEGE": privilege} for privilege in me.privileges]
        if name == "UNIFIED_AUDIT_TRAIL" and me.may("SELECT ANY DICTIONARY"):
            refused = [{"RETURN_CODE": 1017, "SQL_TEXT": None} for _ in range(self.refused)]
            return ({"RETURN_CODE": NUMBER, "SQL_TEXT": VARCHAR},
                    refused + [{"RETURN_CODE": 0, "SQL_TEXT": seen["text"].split(" IDENTIFIED BY ")[0]} for seen in self.seen])
        if name == "PRODUCT_COMPONENT_VERSION":
            product = {"PRODUCT": "Oracle Database 19c Enterprise Edition", "VERSION": "19.0.0.0.0",
                       "VERSION_FULL": VERSION, "STATUS": "Production"}
            return dict.fromkeys(product, VARCHAR), [product]
        if name == "USER_PASSWORD_LIMITS":
            verify = "VERIFY_FUNCTION" if self.profile["verify"] else "NULL"
            limits = {"FAILED_LOGIN_ATTEMPTS": str(self.profile["attempts"] or "UNLIMITED"),
                      "PASSWORD_LOCK_TIME": "1", "PASSWORD_VERIFY_FUNCTION": verify,
                      "PASSWORD_REUSE_MAX": str(self.profile["remembered"] or "UNLIMITED"),
                      "PASSWORD_ROLLOVER_TIME": "1" if self.profile["rollover"] else "0"}
            return ({"RESOURCE_NAME": VARCHAR, "LIMIT": VARCHAR},
                    [{"RESOURCE_NAME": resource, "LIMIT": limit} for resource, limit in limits.items()])
        raise Refused(942, "table or view does not exist")

    def select(self, by, statement, binds):
        """The columns of an answer, as names with kinds, and its rows."""
        wanted, name, conditions = sql.select(statement)
        kinds, table = self.view(by, name)
        for column, asked in conditions:
            if column not in kinds:
                raise Refused(904, f'"{column}": invalid identifier')
            if asked.kind == "bind":
                if not binds:
                    raise Refused(1008, "not all variables bound")
                value = binds.pop(0)
            else:
                value = by if asked.is_word("USER") else asked.text
            table = [row for row in table if row[column] == value]
        columns, sources = [], []
        for token in wanted:
            title = token.text if token.kind == "quoted" else token.text.upper()
            if token.kind == "number":
                columns.append((title, NUMBER))
                sources.append(lambda row, fixed=int(token.text): fixed)
            elif token.kind == "string" or token.is_word("USER"):
                columns.append((title, VARCHAR))
                sources.append(lambda row, fixed=by if token.kind == "word" else token.text: fixed)
            elif title in kinds:
                columns.append((title, kinds[title]))
                sources.append(lambda row, title=title: row[title])
            else:
                raise Refused(904, f'"{title}": invalid identifier')
        return columns, [[source(row) for source in sources] for row in table]
