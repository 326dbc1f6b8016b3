/*
 * Calls the stand-in as a program would, and prints what it was answered.
 * xtask/src/windows.rs compares that, and what the stand-in wrote down.
 */
#define UNICODE
#include <windows.h>
#include <lm.h>
#include <stdio.h>

int main(void)
{
    wchar_t new[] = L"new-canary-2222";
    USER_INFO_1003 information = {new};
    DWORD wrong = 7;

    printf("%lu ", NetUserChangePassword(NULL, L"app", L"old-canary-1111", new));
    printf("%lu ", NetUserSetInfo(L"\\\\server", L"app", 1003, (LPBYTE)&information, &wrong));
    printf("%lu\n", wrong);
    return 0;
}
