/* A rotator that hangs behind its permit and does not hear that its input
 * ended: the plugin "stall", for an image that has no interpreter. It proves
 * how a host ends a container, not what a rotator does. Asked afterwards, it
 * takes any secret.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRAITS \
    "{\"origin\":\"orchestrator\",\"overlap\":\"none\",\"needs_current\":true,\"admin_reset\":false," \
    "\"verify\":\"login\",\"hosts\":\"one\",\"finish\":false}"

static char line[1 << 20];

static int asks(const char *method)
{
    char wanted[64];
    snprintf(wanted, sizeof wanted, "\"method\":\"%s\"", method);
    return strstr(line, wanted) != NULL;
}

static void answer(long id, const char *result)
{
    printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":%s}\n", id, result);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("{\"jsonrpc\":\"2.0\",\"method\":\"hello\",\"params\":{\"protocol\":[1],\"plugin\":\"stall\","
         "\"version\":\"0.1.0\",\"operations\":[\"describe\",\"plan\",\"check\",\"prepare\",\"apply\",\"verify\"]}}");
    while (fgets(line, sizeof line, stdin)) {
        const char *found = strstr(line, "\"id\":");
        long id = found ? strtol(found + 5, NULL, 10) : 0;
        if (asks("describe")) {
            answer(id, "{\"plugin\":\"stall\",\"version\":\"0.1.0\",\"summary\":\"Hangs.\",\"schema\":{\"type\":\"object\","
                       "\"properties\":{\"login\":{\"type\":\"string\",\"x-turnlock\":\"account\"},"
                       "\"password\":{\"type\":\"string\",\"writeOnly\":true,\"x-turnlock\":\"write-back\"}}},"
                       "\"traits\":" TRAITS "}");
        } else if (asks("plan")) {
            answer(id, "{\"traits\":" TRAITS "}");
        } else if (asks("verify")) {
            answer(id, "{\"verdict\":\"accepted\"}");
        } else if (asks("apply")) {
            printf("{\"jsonrpc\":\"2.0\",\"id\":\"t1\",\"method\":\"threshold\",\"params\":{\"id\":%ld}}\n", id);
            if (!fgets(line, sizeof line, stdin) || !strstr(line, "\"proceed\":true"))
                return 1;
            for (;;)
                pause();
        } else {
            answer(id, "{}");
        }
    }
    return 0;
}
