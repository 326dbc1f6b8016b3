/*
 * Remembers what a program has made durable, so that the lab can take away the
 * rest: the state of a disk after a power cut. Loaded with LD_PRELOAD.
 *
 *   LAB_SHIM_DIR      the directory that is watched (its own files, not its subdirectories)
 *   LAB_SHIM_SHADOW   where durable states are kept: content/<key> and names ("key name" a line)
 *   LAB_SHIM_KILL_AT  the process kills itself at this sync, counted from 1
 *   LAB_SHIM_WHEN     "before" it happens, or right "after" it (the default)
 *   LAB_SHIM_COUNT    a file that gets a line for each sync: pid, number, file
 *
 * A sync of a file makes its content and its present name durable, as ext4 does.
 * A sync of the directory makes all present names durable, and removals too. A
 * file is known by inode and birth, so a rename keeps its content.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KEY = 64, PLACE = PATH_MAX + NAME_MAX + 16 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long count;

static int key_of(int at, const char *name, int flags, char key[KEY])
{
    struct statx found;
    if (statx(at, name, flags | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &found) != 0 || !S_ISREG(found.stx_mode))
        return -1;
    snprintf(key, KEY, "%llu-%lld-%u", (unsigned long long)found.stx_ino,
             (long long)found.stx_btime.tv_sec, found.stx_btime.tv_nsec);
    return 0;
}

/* Copies by pread, so that the caller's file position stays; temp + rename, so that no half copy is ever seen. */
static void keep_content(int source, const char *shadow, const char *key)
{
    char draft[PLACE], final[PLACE], path[64], buffer[65536];
    snprintf(draft, sizeof draft, "%s/content/.draft-%d", shadow, (int)getpid());
    snprintf(final, sizeof final, "%s/content/%s", shadow, key);
    /* The descriptor may be write-only: open the same file again for reading. */
    snprintf(path, sizeof path, "/proc/self/fd/%d", source);
    int in = open(path, O_RDONLY | O_CLOEXEC);
    int out = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t length = -1;
    while (in >= 0 && out >= 0 && (length = read(in, buffer, sizeof buffer)) > 0)
        if (write(out, buffer, (size_t)length) != length) { length = -1; break; }
    if (in >= 0) close(in);
    if (out >= 0) close(out);
    if (length != 0 || rename(draft, final) != 0) { fprintf(stderr, "lab shim: cannot keep %s\n", final); abort(); }
}

/* Rewrites the list of durable names. With `name`: this one is bound to `key`, others stay. Without: as the directory is now. */
static void keep_names(const char *watched, const char *shadow, const char *name, const char *key)
{
    char draft[PLACE], final[PLACE], line[PLACE], other[KEY];
    snprintf(draft, sizeof draft, "%s/.names-%d", shadow, (int)getpid());
    snprintf(final, sizeof final, "%s/names", shadow);
    FILE *out = fopen(draft, "we");
    if (!out) { fprintf(stderr, "lab shim: cannot write %s\n", draft); abort(); }
    if (name) {
        FILE *in = fopen(final, "re");
        while (in && fgets(line, sizeof line, in)) {
            char *known = strchr(line, ' ');
            if (known && (strlen(known + 1) != strlen(name) + 1 || strncmp(known + 1, name, strlen(name)) != 0))
                fputs(line, out);
        }
        if (in) fclose(in);
        fprintf(out, "%s %s\n", key, name);
    } else {
        DIR *directory = opendir(watched);
        for (struct dirent *entry; directory && (entry = readdir(directory));)
            if (key_of(dirfd(directory), entry->d_name, 0, other) == 0)
                fprintf(out, "%s %s\n", other, entry->d_name);
        if (directory) closedir(directory);
    }
    if (fclose(out) != 0 || rename(draft, final) != 0) abort();
}

/* Whether the descriptor is watched; `name` is then the file's name, empty for the directory itself. */
static int is_watched(int fd, const char *watched, char path[PATH_MAX], const char **name)
{
    char link[64];
    size_t prefix = strlen(watched);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = '\0';
    if (strncmp(path, watched, prefix) != 0 || (path[prefix] != '\0' && path[prefix] != '/')) return 0;
    *name = path[prefix] == '/' ? path + prefix + 1 : "";
    return strchr(*name, '/') == NULL;
}

static int sync_through(const char *real, int fd)
{
    int (*call)(int) = (int (*)(int))dlsym(RTLD_NEXT, real);
    const char *watched = getenv("LAB_SHIM_DIR"), *shadow = getenv("LAB_SHIM_SHADOW"), *name = "";
    const char *kill_at = getenv("LAB_SHIM_KILL_AT"), *when = getenv("LAB_SHIM_WHEN"), *counts = getenv("LAB_SHIM_COUNT");
    char path[PATH_MAX], place[PLACE], key[KEY];
    if (!call) { errno = ENOSYS; return -1; }
    if (!watched || !shadow || !is_watched(fd, watched, path, &name)) return call(fd);

    /* Syncs stand in line: what is kept must be what this very sync made durable. */
    pthread_mutex_lock(&lock);
    unsigned long mine = kill_at ? strtoul(kill_at, NULL, 10) : 0;
    if (mine == count + 1 && when && strcmp(when, "before") == 0) kill(getpid(), SIGKILL);
    int result = call(fd), saved = errno;
    if (result == 0) {
        snprintf(place, sizeof place, "%s/lock", shadow);
        int gate = open(place, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        flock(gate, LOCK_EX);
        if (*name == '\0') keep_names(watched, shadow, NULL, NULL);
        else if (key_of(fd, "", AT_EMPTY_PATH, key) == 0) {
            keep_content(fd, shadow, key);
            /* A file that was removed while open has content but no name any more. */
            if (access(path, F_OK) == 0) keep_names(watched, shadow, name, key);
        }
        count++;
        int out = counts ? open(counts, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
        if (out >= 0) { dprintf(out, "%d %lu %s\n", (int)getpid(), count, *name ? name : "."); close(out); }
        if (mine == count) kill(getpid(), SIGKILL);
        if (gate >= 0) close(gate);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

int fsync(int fd) { return sync_through("fsync", fd); }
int fdatasync(int fd) { return sync_through("fdatasync", fd); }
