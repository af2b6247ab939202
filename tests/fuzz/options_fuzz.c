/* Input: teal.ini. The parser must refuse or accept it; what it accepts names its sides without
 * their passwords, which the input writes as SECRET. */
#include <string.h>

#include "engine/options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const char sides[] = "[migration]\nname = a\nstate = /s\n[green]\nuri = host=g\n";

static void parse(struct bytes text)
{
    struct options *o = NULL;
    struct error err = {0};
    if (!options_parse("/etc/teal.ini", text, &o, &err)) {
        check(err.kind == ERROR_CONFIG);
        return;
    }
    (void)options_includes(o, "public", "orders");
    (void)options_table(o, BYTES("public"), BYTES("orders"));
    options_free(o);
}

/* A password in the userinfo, wherever the input puts it. */
static void parse_secret(struct bytes input)
{
    cleanup_with(writer_release) struct writer text = {0};
    writer_text(&text, sides);
    writer_text(&text, "[blue]\nuri = postgresql://u:");
    writer_bytes(&text, input);
    struct options *o = NULL;
    struct error err = {0};
    if (!options_parse("/etc/teal.ini", writer_view(&text), &o, &err)) {
        check(strstr(err.text, "SECRET") == NULL);
        return;
    }
    const char *end = strpbrk(o->blue.conninfo + strlen("postgresql://u:"), "@/");
    const char *secret = strstr(o->blue.conninfo, "SECRET");
    if (end != NULL && *end == '@' && secret != NULL && secret < end)
        check(strstr(o->blue.shown, "SECRET") == NULL || strstr(end, "SECRET") != NULL);
    options_free(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    parse((struct bytes){data, len});
    if (len > 0 && memchr(data, '[', len) == NULL && memchr(data, '\n', len) == NULL)
        parse_secret((struct bytes){data, len});
    return 0;
}
