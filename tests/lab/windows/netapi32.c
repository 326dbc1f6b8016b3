/*
 * A stand-in for Windows' netapi32.dll, of which wine has only a part: it
 * changes no password, writes down what it was asked, and answers what the
 * test chose.
 *
 *   LAB_NETAPI32_CALLS    the file that gets a line for each call; without it every call is refused
 *   LAB_NETAPI32_ANSWERS  the error code of every call, in decimal; 0 (NERR_Success) without it
 *
 * A line names the function and its arguments. Of a password it holds the
 * number of UTF-16 units and the FNV-1a hash of their bytes, low byte first:
 *
 *   NetUserChangePassword where=- user=app old=15:041bf113707de784 new=15:ada499f9810365af
 *   NetUserSetInfo where=\\server user=app level=1003 new=15:ada499f9810365af
 *
 * It proves what a program asks for and how it takes an answer. It proves
 * nothing about Windows: neither which codes it answers with, nor its rights,
 * nor its rules for passwords, nor that one is changed.
 */
#define UNICODE
#include <windows.h>
#include <lm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* A text's length and hash; "-" when there is none. */
static const char *digest(char into[32], LPCWSTR text)
{
    unsigned long long hash = 0xcbf29ce484222325;
    int length = 0;

    if (!text)
        return "-";
    for (; text[length]; length++) {
        hash = (hash ^ (text[length] & 0xff)) * 0x100000001b3;
        hash = (hash ^ (text[length] >> 8)) * 0x100000001b3;
    }
    snprintf(into, 32, "%d:%016llx", length, hash);
    return into;
}

/* Writes one line down and chooses the answer. */
static NET_API_STATUS answer(const char *line, ...)
{
    const char *calls = getenv("LAB_NETAPI32_CALLS");
    const char *answers = getenv("LAB_NETAPI32_ANSWERS");
    FILE *file = calls ? fopen(calls, "ab") : NULL;
    int written;
    va_list arguments;

    if (!file)
        return ERROR_NOT_SUPPORTED;
    va_start(arguments, line);
    written = vfprintf(file, line, arguments);
    va_end(arguments);
    if (fclose(file) != 0 || written < 0)
        return ERROR_WRITE_FAULT;
    return answers ? strtoul(answers, NULL, 10) : NERR_Success;
}

static LPCWSTR name(LPCWSTR text)
{
    return text ? text : L"-";
}

NET_API_STATUS WINAPI NetUserChangePassword(LPCWSTR where, LPCWSTR user, LPCWSTR old, LPCWSTR new)
{
    char olds[32], news[32];

    return answer("NetUserChangePassword where=%ls user=%ls old=%s new=%s\n",
                  name(where), name(user), digest(olds, old), digest(news, new));
}

NET_API_STATUS WINAPI NetUserSetInfo(LPCWSTR where, LPCWSTR user, DWORD level, LPBYTE information, LPDWORD wrong)
{
    char news[32];
    LPCWSTR new = level == 1003 && information ? ((USER_INFO_1003 *)information)->usri1003_password : NULL;

    if (wrong)
        *wrong = 0;
    return answer("NetUserSetInfo where=%ls user=%ls level=%lu new=%s\n",
                  name(where), name(user), level, digest(news, new));
}
