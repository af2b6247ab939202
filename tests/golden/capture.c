/* Writes what a slot sends, until standard input ends and nothing more comes, to a file: how
 * the files in tests/golden/postgres are made.
 *
 *   capture CONNINFO SLOT PUBLICATION PROTOCOL FROM FILE
 *
 * A file is a row of records: u8 kind of frame, u32be length, body. Progress is left out: when
 * it comes is chance. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "decoders/postgres/stream.h"
#include "engine/base/writer.h"

enum { WAIT_MS = 200, ARGUMENTS = 7 };

static void write_frame(struct writer *out, const struct frame *frame)
{
    writer_u8(out, (uint8_t)frame->kind);
    writer_u32be(out, (uint32_t)frame->body.len);
    writer_bytes(out, frame->body);
}

static bool input_ended(void)
{
    struct pollfd p = {.fd = 0, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

static bool capture(struct source *s, const struct position *from, struct writer *out,
                    struct error *err)
{
    TRY(s->ops->open(s, from, err));
    for (bool got = true; got || !input_ended();) {
        struct frame frame;
        TRY(s->ops->read(s, WAIT_MS, &frame, &got, err));
        if (got && frame.kind != FRAME_PROGRESS)
            write_frame(out, &frame);
    }
    return true;
}

int main(int argc, char **argv)
{
    if (argc != ARGUMENTS) {
        (void)fprintf(stderr, "usage: capture CONNINFO SLOT PUBLICATION PROTOCOL FROM FILE\n");
        return 2;
    }
    struct pg_stream_options options = {.conninfo = argv[1],
                                        .name = "capture",
                                        .slot = argv[2],
                                        .publication = argv[3],
                                        .system_id = "",
                                        .streaming = strcmp(argv[4], "2") == 0};
    struct position from = position_of((struct bytes){(uint8_t *)argv[5], strlen(argv[5])});
    struct source *s = pg_stream_new(&options);
    struct writer out = {0};
    struct error err = {0};
    bool ok = capture(s, &from, &out, &err);
    s->ops->free(s);
    FILE *file = ok ? fopen(argv[6], "wb") : NULL;
    ok = file != NULL && fwrite(out.data, 1, out.len, file) == out.len;
    ok = file != NULL && fclose(file) == 0 && ok;
    if (!ok)
        (void)fprintf(stderr, "capture: %s\n", err.text);
    writer_release(&out);
    return ok ? 0 : 1;
}
