#!/usr/bin/env bash
# A newcomer's first five minutes, with a clock: from the tarball and from the
# Debian package, each on a Debian that has never seen Turnlock, to a rotated
# credential of a real PostgreSQL. What is typed is what docs/install.md says.
#
# usage: sudo ci/newcomer.sh [DIST [BASE]]
#   DIST  where `cargo xtask dist` left its files (target/dist)
#   BASE  a root made by an earlier run, to save the time of debootstrap
set -euo pipefail
cd "$(dirname "$0")/.."
dist=$(realpath "${1:-target/dist}")
base=${2:-}
work=$(mktemp -d /tmp/turnlock-newcomer.XXXXXX)

leave() {
    for root in "$work"/tarball "$work"/deb; do
        [ -d "$root" ] || continue
        chroot "$root" pg_ctlcluster 15 main stop -m immediate >/dev/null 2>&1 || true
        umount "$root/proc" "$root/dev" 2>/dev/null || true
    done
    rm -rf --one-file-system "$work"
}
trap leave EXIT

# The block of docs/install.md with this name.
block() { awk -v name="$1" '$1 == "```sh" && $2 == name {on = 1; next} /^```/ {on = 0} on' docs/install.md; }

if [ -z "$base" ]; then
    base=$work/base
    begun=$(date +%s)
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/\?$')
    debootstrap --variant=minbase --include=postgresql,ca-certificates,systemd bookworm "$base" "$mirror" >"$work/log" 2>&1 ||
        { tail -20 "$work/log"; exit 1; }
    echo "a fresh Debian: made in $(($(date +%s) - begun)) s, which is not counted"
fi

# A server with one account, at a port of its own, in a root of its own.
furnish() {
    local root=$1 port=$2
    cp --archive "$base" "$root"
    mount -t proc proc "$root/proc"
    mount --bind /dev "$root/dev"
    sed -i "s/^port = .*/port = $port/" "$root/etc/postgresql/15/main/postgresql.conf"
    chroot "$root" pg_ctlcluster 15 main start
    chroot "$root" runuser -u postgres -- psql --quiet --port "$port" \
        --command "CREATE ROLE app LOGIN PASSWORD 'Begin-With-This-1'"
}

# Runs what the page says, as a user of that root; %N seconds of it are told.
path() {
    local name=$1 root=$work/$1 port=$2 user=$3 file=$4
    furnish "$root" "$port"
    cp "$dist"/$file "$root/root/"
    local begun ended
    begun=$(date +%s.%N)
    chroot "$root" bash -euxc "cd /root; $(block "install-$name")" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    [ "$user" = turnlock ] || chroot "$root" useradd --create-home "$user"
    sed "s/db1.example.com/127.0.0.1:$port/" <(block five-minutes) |
        chroot "$root" runuser -u "$user" -- env -C / HOME="$(chroot "$root" getent passwd "$user" | cut -d: -f6)" \
            PATH=/usr/local/bin:/usr/bin:/bin bash -eux >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    ended=$(date +%s.%N)
    grep -q '^rotated Orders database' "$work/log" || { cat "$work/log"; exit 1; }
    if PGPASSWORD=Begin-With-This-1 chroot "$root" psql --quiet --host 127.0.0.1 --port "$port" --username app postgres \
        --command 'SELECT 1' >/dev/null 2>&1; then
        echo "the old password still opens the server" >&2
        exit 1
    fi
    echo "from $file, installed to rotated: $(echo "$ended $begun" | awk '{printf "%.1f", $1 - $2}') s"
}

path tarball 54391 newcomer 'turnlock-*-linux.tar.gz'
path deb 54392 turnlock 'turnlock_*.deb'
