#include "storage.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "boot.h"
#include "config.h"

#define PLATFORM "/sys/bus/platform"

static bool layered; /* ROOT is the overlay of LOWER and LAYER */

/* Whether this is the platform device of the slot, with nobody who drives it. */
static bool is_free_slot(const char *name, uint64_t slot)
{
	char path[400], text[32];

	if (strncmp(name, "LNRO0005:", 9) != 0)
		return false;
	snprintf(path, sizeof path, PLATFORM "/devices/%s/driver", name);
	if (access(path, F_OK) == 0)
		return false;
	snprintf(path, sizeof path, PLATFORM "/devices/%s/firmware_node/uid", name);
	return get_file(path, text, sizeof text) > 0 && strtoull(text, NULL, 10) == slot;
}

void storage_look(uint64_t slot)
{
	struct dirent *entry;
	DIR *folder = opendir(PLATFORM "/devices");

	while (folder && (entry = readdir(folder)))
		if (is_free_slot(entry->d_name, slot)) {
			put_file(PLATFORM "/drivers/virtio-mmio/bind", entry->d_name);
			break;
		}
	if (folder)
		closedir(folder);
}

/* The /dev path of `serial:NAME`, once it is there; others are copied. */
static bool find_disk(const char *device, char *path, size_t size)
{
	int64_t end = now_ms() + 5000;

	do {
		struct dirent *entry;
		DIR *folder;
		char file[320], serial[64];

		if (strncmp(device, "serial:", 7) != 0) {
			snprintf(path, size, "%s", device);
			if (access(path, F_OK) == 0)
				return true;
		} else if ((folder = opendir("/sys/block"))) {
			bool found = false;
			while (!found && (entry = readdir(folder))) {
				snprintf(file, sizeof file, "/sys/block/%s/serial", entry->d_name);
				found = get_file(file, serial, sizeof serial) >= 0 &&
					strcmp(serial, device + 7) == 0;
				if (found)
					snprintf(path, size, "/dev/%s", entry->d_name);
			}
			closedir(folder);
			if (found)
				return true;
		}
		usleep(2000);
	} while (now_ms() < end);
	errno = ENODEV;
	return false;
}

bool storage_mount(const char *device, const char *target, const char *kind, unsigned long flags,
		   char *error, size_t size)
{
	char path[320];

	load_modules(kind);
	if (!find_disk(device, path, sizeof path))
		return cannot(error, size, "find the disk", device);
	if (!make_folders(target, 0755) || mount(path, target, kind, flags, NULL) < 0)
		return cannot(error, size, "mount the disk", path);
	return true;
}

bool storage_overlay(char *error, size_t size)
{
	const char *options = "lowerdir=" LOWER ",upperdir=" LAYER "/upper,workdir=" LAYER "/work";

	if (!make_folders(LAYER "/upper", 0755) || !make_folders(LAYER "/work", 0755) ||
	    !make_folders(ROOT, 0755) || mount("overlay", ROOT, "overlay", 0, options) < 0)
		return cannot(error, size, "mount the overlay", ROOT);
	layered = true;
	return true;
}

bool storage_ready(void)
{
	return layered;
}

char *storage_share(const char *tag, const char *inside, char *error, size_t size)
{
	char folder[256], *path;

	errno = EINVAL;
	if (strchr(tag, '/') || *tag == '.' || !*tag || strlen(tag) > 64) {
		cannot(error, size, "take the tag", tag);
		return NULL;
	}
	snprintf(folder, sizeof folder, SHARES "/%s", tag);
	if (access(folder, F_OK) < 0) {
		load_modules("virtiofs");
		if (!make_folders(folder, 0755) || mount(tag, folder, "virtiofs", 0, NULL) < 0) {
			cannot(error, size, "mount the share", tag);
			rmdir(folder);
			return NULL;
		}
	}
	if (asprintf(&path, "%s%s%s", folder, *inside ? "/" : "", inside) < 0)
		return NULL;
	return path;
}

static void unmount_volumes(void)
{
	struct dirent *entry;
	DIR *folder = opendir(VOLUMES);
	char path[320];

	while (folder && (entry = readdir(folder))) {
		snprintf(path, sizeof path, VOLUMES "/%s", entry->d_name);
		if (*entry->d_name != '.')
			umount2(path, 0);
	}
	if (folder)
		closedir(folder);
}

void storage_undo(void)
{
	sync();
	unmount_volumes();
	for (int tries = 0; layered && tries < 40; tries++) {
		umount2(ROOT, 0);
		if (umount2(LAYER, 0) == 0 || errno == EINVAL)
			return;
		usleep(25000);
	}
}
