"""Rotates accounts with a plugin of Keeper Commander, one after the other. Its
plugin alone: no vault is read or written. A question on standard input, the
seconds it took without its start on standard output."""

import json
import re
import sys
import time

from keepercommander.plugins import plugin_manager

question = json.load(sys.stdin)
sys.stdout, answers = sys.stderr, sys.stdout

if question["plugin"] == "ssh":
    # Its patterns begin with `(?i)` and are given a prefix, which Python accepts
    # up to 3.10. Without this it would not run here at all.
    compiled = re.match

    def match(pattern, text, flags=0):
        if isinstance(pattern, str) and "(?i)" in pattern:
            pattern, flags = pattern.replace("(?i)", ""), flags | re.IGNORECASE
        return compiled(pattern, text, flags)

    re.match = match

module = plugin_manager.load_plugin(question["plugin"])
begun = time.monotonic()
for login in question["logins"]:
    rotator = module.Rotator(host="127.0.0.1", port=question["port"], login=login, password=question["old"])
    if not rotator.rotate(None, question["new"]):
        sys.exit(f"the plugin did not rotate {login}")
json.dump({"seconds": time.monotonic() - begun}, answers)
