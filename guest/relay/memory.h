/* A guest's memory as a file without a name. */
#ifndef GEMEL_RELAY_MEMORY_H
#define GEMEL_RELAY_MEMORY_H

/* A new file of the same content and size, holes and all; -1 with errno. */
int memory_copy(int from);

#endif
