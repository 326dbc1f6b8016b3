/*
 * Stand-ins for programs that Debian does not have. They really change the
 * password of the box's account; what they prove is that a rotator answers
 * these questions and these statuses, and nothing of the systems they imitate.
 *
 * As `passwd` they speak like RHEL's (or, where /etc/lab-wording says so, like
 * BusyBox's) and, like RHEL's, do nothing without a terminal.
 *
 * As `account login`, with the current and the new password as two lines on
 * standard input, they serve the stand-in for a Windows host. An empty current
 * password is taken from root's account only.
 */
#define _GNU_SOURCE
#include <crypt.h>
#include <libgen.h>
#include <pwd.h>
#include <shadow.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static int line(char *into, size_t size) {
    if (!fgets(into, (int)size, stdin))
        return 0;
    into[strcspn(into, "\n")] = 0;
    return 1;
}

static int ask(const char *prompt, char *into, size_t size) {
    fputs(prompt, stdout);
    fflush(stdout);
    int got = line(into, size);
    puts("");
    return got;
}

static int is_right(const char *login, const char *password) {
    struct spwd *entry = getspnam(login);
    if (!entry || entry->sp_pwdp[0] == '!' || entry->sp_pwdp[0] == '*')
        return 0;
    char *hash = crypt(password, entry->sp_pwdp);
    return hash && strcmp(hash, entry->sp_pwdp) == 0;
}

static int set(const char *login, const char *password) {
    if (setuid(0))
        return 1;
    FILE *chpasswd = popen("/usr/sbin/chpasswd -c SHA512 -s 1000", "w");
    if (!chpasswd)
        return 1;
    fprintf(chpasswd, "%s:%s\n", login, password);
    return pclose(chpasswd) != 0;
}

static int passwd(const char *login) {
    char current[600], next[600], again[600], wording[20] = "";
    if (!isatty(0)) {
        fputs("passwd: standard input is no terminal\n", stderr);
        return 1;
    }
    FILE *file = fopen("/etc/lab-wording", "r");
    if (file && !fgets(wording, sizeof wording, file))
        wording[0] = 0;
    int busybox = strncmp(wording, "busybox", 7) == 0;
    struct termios terminal;
    tcgetattr(0, &terminal);
    terminal.c_lflag &= ~(tcflag_t)ECHO;
    tcsetattr(0, TCSAFLUSH, &terminal);
    printf(busybox ? "Changing password for %s\n" : "Changing password for user %s.\n", login);
    if (!ask(busybox ? "Old password: " : "Current password: ", current, sizeof current))
        return 1;
    if (!is_right(login, current)) {
        fputs(busybox ? "passwd: incorrect password for account\n" : "passwd: Authentication token manipulation error\n", stderr);
        return 1;
    }
    for (int round = 0; round < 3; round++) {
        if (!ask("New password: ", next, sizeof next))
            return 1;
        if (strlen(next) < 8) {
            puts("BAD PASSWORD: The password is shorter than 8 characters");
            continue;
        }
        if (!ask(busybox ? "Retype password: " : "Retype new password: ", again, sizeof again))
            return 1;
        if (strcmp(next, again)) {
            puts("Sorry, passwords do not match.");
            continue;
        }
        if (set(login, next))
            return 1;
        if (busybox)
            printf("passwd: password for %s changed by %s\n", login, login);
        else
            puts("passwd: all authentication tokens updated successfully.");
        return 0;
    }
    return 1;
}

int main(int count, char **arguments) {
    if (strcmp(basename(arguments[0]), "passwd") == 0) {
        struct passwd *own = getpwuid(getuid());
        return own ? passwd(own->pw_name) : 1;
    }
    char current[600], next[600];
    if (count != 2 || !line(current, sizeof current) || !line(next, sizeof next))
        return 1;
    if (current[0] ? !is_right(arguments[1], current) : getuid() != 0)
        return 86;
    return strlen(next) < 8 ? 2245 % 256 : set(arguments[1], next);
}
