/* What CONFIG asks for, as the agent keeps it. */
#ifndef GEMEL_CONFIG_H
#define GEMEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net.h"
#include "record.h"
#include "util.h"

#define ROOT "/gemel/root"
#define LOWER "/gemel/lower"
#define LAYER "/gemel/layer"
#define SHARES "/gemel/shares"
#define VOLUMES "/gemel/volumes"
#define FILES "/gemel/files"

enum mount_kind { MOUNT_SHARE, MOUNT_TMPFS, MOUNT_FILE };

/* One thing mounted into the service's root when its mount namespace is made. */
struct mount_entry {
	enum mount_kind kind;
	char *source;  /* SHARE, FILE: path in the guest's first root. TMPFS: NULL */
	char *target;
	char *options; /* TMPFS, SHARE: as mount(8) has them */
	bool readonly;
	bool only_if_there; /* leave it if the image has no such target */
};

struct config {
	bool ready;
	bool readonly_root;
	bool init;
	uint64_t shm;
	struct mount_entry *mounts;
	size_t mount_count;
	unsigned file_count;
};

extern struct config config;

/* Carries out a whole CONFIG message. False: `error` says why. */
bool config_apply(const uint8_t *data, size_t length, char *error, size_t size);

/* Carries out what may be told at any time: time, entropy, hostname, file. -1: not one of these. */
int config_always(const struct record *record, char *error, size_t size);

bool config_machine_id(const struct record *record);

/* Reads a `nic` record and has it carried out. */
bool config_nic(const struct record *record,
		bool (*carry_out)(const struct nic *nic, char *error, size_t size), char *error,
		size_t size);

#endif
