/* A guest's memory as a file without a name. */
#ifndef GEMEL_RELAY_MEMORY_H
#define GEMEL_RELAY_MEMORY_H

#include <stdbool.h>

/* A new file of the same content, holes and all, whose size cannot be changed; -1 with errno. */
int memory_copy(int from);

/* Copies what one file in memory holds into another, which gets its size. The first is sealed
 * against becoming shorter. False: errno says why. */
bool memory_fill(int from, int to);

#endif
