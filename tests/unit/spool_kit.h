/* What the spool's tests share: a folder, a stream of frames that is a function of their
 * number, and files to break. */
#ifndef TESTS_SPOOL_KIT_H
#define TESTS_SPOOL_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "engine/base/writer.h"
#include "engine/spool.h"
#include "engine/spool_segment.h"

struct kit {
    char folder[64];
    struct spool_options options;
    struct spool *spool;
    uint64_t put;  /* Frames appended. */
    uint64_t read; /* Frames read and compared. */
    uint64_t segment;
    uint64_t seq_base;
};

int kit_setup(void **state);
int kit_teardown(void **state);

/* Opens; expects success. Restarted at 0 if it is empty. */
void kit_open(struct kit *k);
void kit_close(struct kit *k);

/* Frame `i` of the stream: every fourth is a commit, every eighth progress. */
struct frame kit_frame(uint64_t i, uint8_t *body, char *pos);
uint64_t kit_seq_at(uint64_t frames);

/* False if the spool is full. */
bool kit_try_put(struct kit *k);
void kit_put(struct kit *k, uint64_t count);
/* Reads and compares; how many came before there was none for `wait_ms`. */
uint64_t kit_read(struct kit *k, uint64_t count, int wait_ms);
void kit_wait_durable(struct kit *k);

void kit_path(const struct kit *k, uint64_t number, char path[PATH_MAX]);
void kit_load(const struct kit *k, uint64_t number, struct writer *bytes);
void kit_save(const struct kit *k, uint64_t number, struct bytes bytes);
bool kit_exists(const struct kit *k, uint64_t number);

/* Opening fails like this and changes no byte of segment `number`. */
void kit_refused(struct kit *k, uint64_t number, enum error_kind kind, const char *text);

#endif
