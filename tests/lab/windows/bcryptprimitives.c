/*
 * A stand-in for Windows' bcryptprimitives.dll, which wine 8 does not have and
 * every Rust program imports. It hands wine's own random bytes on.
 *
 * It proves nothing about Windows' random numbers: not that they are there,
 * not that they are good, not what happens when they fail.
 */
#include <windows.h>
#include <ntsecapi.h>

__declspec(dllexport) BOOL WINAPI ProcessPrng(PUCHAR data, SIZE_T length)
{
    while (length > 0) {
        ULONG part = length > MAXLONG ? MAXLONG : (ULONG)length;
        if (!RtlGenRandom(data, part))
            return FALSE;
        data += part;
        length -= part;
    }
    return TRUE;
}
