/* Values as binary parameters: an array of many rows' values of one column, as array_send()
 * writes it, for types whose binary form follows from their text without doubt. The server
 * takes such an array in at a fraction of what parsing its text costs. */
#ifndef APPLIERS_POSTGRES_BINARY_H
#define APPLIERS_POSTGRES_BINARY_H

#include "engine/base/writer.h"
#include "engine/change.h"

/* Whether there is a binary form here for arrays of this type. */
bool binary_knows(uint32_t type);

/* Column `column` of each tuple. False, and nothing is written, if some text is not what the
 * type's output function writes: then it must go as text, and the server judges it. */
must_check bool binary_column(struct writer *w, const struct tuple *rows, uint32_t count,
                              uint16_t column, uint32_t type);

#endif
