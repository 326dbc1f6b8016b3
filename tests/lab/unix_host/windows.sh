#!/bin/bash
# A stand-in for cmd.exe at a Windows host's OpenSSH. It proves which way the
# secrets take and what statuses come to, and nothing of PowerShell: what a
# command line holds is written down for the test, not run. Standard input is
# three lines of base64: login, current password (or empty), new password.
[ "$1" = -c ] || exit 1
case $2 in
powershell*)
    printf '%s\n' "$2" >>"$HOME/windows-commands"
    read -r login && read -r current && read -r next || exit 1
    decode() { printf %s "$1" | base64 -d; }
    { decode "$current"; echo; decode "$next"; echo; } | /run/account "$(decode "$login")"
    status=$?
    case $status in
    0) echo "turnlock: done" ;;
    86) echo "turnlock: 86" ;;
    197) echo "turnlock: 2245" ;;
    *) echo "turnlock: 5" ;;
    esac
    ;;
*)
    echo "'${2%% *}' is not recognized as an internal or external command," >&2
    echo "operable program or batch file." >&2
    exit 1
    ;;
esac
