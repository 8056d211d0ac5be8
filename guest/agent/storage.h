/* The guest's disks and shares, each mounted once at a place of the agent's own. */
#ifndef GEMEL_STORAGE_H
#define GEMEL_STORAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Has the kernel look again at a virtio slot that was empty when the guest booted. What is driven
 * already (a guest that was booted with it) is fine. */
void storage_look(uint64_t slot);

/* Mounts the disk `serial:NAME`, waiting for it, or another device. False: `error` says why. */
bool storage_mount(const char *device, const char *target, const char *kind, unsigned long flags,
		   char *error, size_t size);

/* Makes ROOT of LOWER and LAYER, which are mounted. False: `error` says why. */
bool storage_overlay(char *error, size_t size);

/* Whether there is a ROOT. */
bool storage_ready(void);

/* Mounts a virtiofs share; the path of what is `inside` it ("": itself), or NULL and `error` says
 * why. Caller frees. */
char *storage_share(const char *tag, const char *inside, char *error, size_t size);

/* Unmounts what can be, before power-off. */
void storage_undo(void);

#endif
