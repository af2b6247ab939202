/* Values as parameters: an array literal of many rows' values of one column. */
#ifndef APPLIERS_POSTGRES_LITERAL_H
#define APPLIERS_POSTGRES_LITERAL_H

#include "engine/base/writer.h"
#include "engine/change.h"

/* One more element of the array: NULL, or the text, quoted when it needs it. Begin with '{',
 * end with '}', separate with ','. (PostgreSQL manual, 8.15.6 Array Input and Output Syntax.)
 */
void literal_element(struct writer *w, const struct datum *value);

/* {first,second,…}: column `column` of each tuple. */
void literal_column(struct writer *w, const struct tuple *rows, uint32_t count,
                    uint16_t column);

#endif
