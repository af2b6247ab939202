/* PostgreSQL to PostgreSQL. */
#ifndef ENGINE_POSTGRES_DRIVER_H
#define ENGINE_POSTGRES_DRIVER_H

#include "engine/driver.h"

extern const struct driver postgres_driver;

#endif
