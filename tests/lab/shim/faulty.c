/*
 * Makes a program's disk and clock fail on command. Loaded with LD_PRELOAD.
 *
 *   LAB_FAULTY_DIR    files below this directory fail
 *   LAB_FAULTY_NOTE   gets a line the first time that something failed
 *   LAB_FAULTY_AT     the number of the first operation (write, truncation, sync) that fails, counted from 1
 *   LAB_FAULTY_FOR    how many operations fail; 0 is all from then on
 *   LAB_FAULTY_ERRNO  how they fail, as a number
 *   LAB_FAULTY_LIE    instead: all writes to a "-wal" between this sync of it and the one before are acknowledged and
 *                     not made, and the process kills itself when it asks for the second sync after that
 *   LAB_FAULTY_KILL   instead: the process kills itself at this sync of a "-wal"
 *   LAB_FAULTY_CLOCK_AT, LAB_FAULTY_CLOCK_BY
 *                     from this reading on, the clock of the day is off by so many seconds
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *directory, *note;
static unsigned long fail_at, fail_for, lie_at, kill_at, clock_at;
static long clock_by;
static int fail_errno;
static unsigned long operations, syncs, readings;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_clock)(clockid_t, struct timespec *);

static unsigned long number(const char *name)
{
    const char *text = getenv(name);
    return text ? strtoul(text, NULL, 10) : 0;
}

static void begin(void)
{
    /* ISO C has no cast from an object's address to a function's; POSIX promises this one. */
    *(void **)&real_write = dlsym(RTLD_NEXT, "write");
    *(void **)&real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    *(void **)&real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    *(void **)&real_fsync = dlsym(RTLD_NEXT, "fsync");
    *(void **)&real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    *(void **)&real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    directory = getenv("LAB_FAULTY_DIR");
    note = getenv("LAB_FAULTY_NOTE");
    fail_at = number("LAB_FAULTY_AT");
    fail_for = number("LAB_FAULTY_FOR");
    fail_errno = (int)number("LAB_FAULTY_ERRNO");
    lie_at = number("LAB_FAULTY_LIE");
    kill_at = number("LAB_FAULTY_KILL");
    clock_at = number("LAB_FAULTY_CLOCK_AT");
    clock_by = getenv("LAB_FAULTY_CLOCK_BY") ? strtol(getenv("LAB_FAULTY_CLOCK_BY"), NULL, 10) : 0;
}

static void tell(const char *what)
{
    int out = note ? open(note, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (out < 0) return;
    char line[64];
    int length = snprintf(line, sizeof line, "%d %s\n", (int)getpid(), what);
    if (length > 0 && real_write(out, line, (size_t)length) < 0) { /* There is nobody to tell. */ }
    close(out);
}

/* Whether the file is watched, and in `is_log` whether it is SQLite's log. */
static int is_watched(int fd, int *is_log)
{
    char link[64], path[PATH_MAX];
    if (!directory) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 4) return 0;
    path[length] = '\0';
    *is_log = strcmp(path + length - 4, "-wal") == 0;
    return strncmp(path, directory, strlen(directory)) == 0;
}

/* Counts an operation; whether it has to fail. */
static int fails(int fd, int *is_log)
{
    int failing = 0;
    pthread_once(&once, begin);
    *is_log = 0;
    if (!is_watched(fd, is_log) || !fail_at) return 0;
    pthread_mutex_lock(&lock);
    operations++;
    failing = operations >= fail_at && (!fail_for || operations < fail_at + fail_for);
    if (failing && operations == fail_at) tell("disk");
    pthread_mutex_unlock(&lock);
    return failing;
}

static int is_lied_about(int is_log)
{
    return is_log && lie_at && syncs + 1 == lie_at;
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    int is_log;
    if (fails(fd, &is_log)) { errno = fail_errno; return -1; }
    return real_write(fd, bytes, length);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at)
{
    int is_log;
    if (fails(fd, &is_log)) { errno = fail_errno; return -1; }
    if (is_lied_about(is_log)) return (ssize_t)length;
    return real_pwrite(fd, bytes, length, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return pwrite64(fd, bytes, length, at); }

int ftruncate64(int fd, off_t length)
{
    int is_log;
    if (fails(fd, &is_log)) { errno = fail_errno; return -1; }
    return real_ftruncate(fd, length);
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int sync_through(int fd, int (*call)(int))
{
    int is_log;
    if (fails(fd, &is_log)) { errno = fail_errno; return -1; }
    pthread_mutex_lock(&lock);
    unsigned long mine = is_log ? ++syncs : 0;
    if (mine && mine == lie_at) tell("lie");
    if (mine && (mine == kill_at || (lie_at && mine == lie_at + 2))) {
        if (mine == kill_at) tell("kill");
        kill(getpid(), SIGKILL);
    }
    pthread_mutex_unlock(&lock);
    return call(fd);
}

int fsync(int fd) { pthread_once(&once, begin); return sync_through(fd, real_fsync); }
int fdatasync(int fd) { pthread_once(&once, begin); return sync_through(fd, real_fdatasync); }

int clock_gettime(clockid_t clock, struct timespec *now)
{
    pthread_once(&once, begin);
    int result = real_clock(clock, now);
    if (result != 0 || clock != CLOCK_REALTIME || !clock_at) return result;
    unsigned long mine = __atomic_add_fetch(&readings, 1, __ATOMIC_RELAXED);
    if (mine == clock_at) tell("clock");
    if (mine >= clock_at) now->tv_sec += clock_by;
    return result;
}
