# Makes the box and becomes the program that is its first process.
# $1: its directory; the rest: that program. Runs in new mount and pid namespaces.
set -e
box=$1
shift

mount --bind "$box/etc" /etc
mount --bind "$box/home" /home
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/log
mkdir -p /run/sshd /run/faillock /run/lock /run/stage/shm
touch /var/log/lastlog /var/log/wtmp /var/log/btmp

# A /dev of its own, so that /dev/log belongs to nobody else.
mount --bind /dev/shm /run/stage/shm
mount -t tmpfs -o mode=755 tmpfs /dev
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/zero c 1 5
mknod -m 666 /dev/full c 1 7
mknod -m 666 /dev/random c 1 8
mknod -m 666 /dev/urandom c 1 9
mknod -m 666 /dev/tty c 5 0
mkdir /dev/pts /dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts /dev/pts
mount --bind /run/stage/shm /dev/shm
ln -s pts/ptmx /dev/ptmx
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr

# The stand-ins for passwd must be setuid, which a data directory may not allow.
if [ -e "$box/account" ]; then
    cp "$box/account" /run/account
    chown 0:0 /run/account
    chmod 4755 /run/account
    [ ! -e "$box/replaces-passwd" ] || mount --bind /run/account /usr/bin/passwd
fi

# What PAM, su and passwd write to the system's log.
/usr/bin/python3 -c '
import os, socket, sys
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/dev/log")
os.chmod("/dev/log", 0o666)
if os.fork():
    os._exit(0)
out = open(sys.argv[1], "ab", 0)
while True:
    out.write(log.recv(65536).rstrip(b"\n\0") + b"\n")
' "$box/auth.log" </dev/null >/dev/null 2>&1

echo "turnlock-lab: the box is made"
exec "$@"
