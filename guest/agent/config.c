#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "boot.h"

#define PLATFORM "/sys/bus/platform"

struct config config = {.shm = 64 << 20};

static bool why(char *error, size_t size, const char *what, const char *which)
{
	snprintf(error, size, "%s %s: %s", what, which, strerror(errno));
	return false;
}

static bool add_mount(struct mount_entry entry)
{
	struct mount_entry *grown =
		realloc(config.mounts, (config.mount_count + 1) * sizeof *grown);

	if (!grown)
		return false;
	config.mounts = grown;
	config.mounts[config.mount_count++] = entry;
	return true;
}

static bool set_time(const struct record *record)
{
	uint64_t ns;
	struct timespec t;

	if (!record_number(record, 1, INT64_MAX, &ns))
		return false;
	t.tv_sec = (time_t)(ns / 1000000000);
	t.tv_nsec = (long)(ns % 1000000000);
	return clock_settime(CLOCK_REALTIME, &t) == 0;
}

static bool set_entropy(const struct record *record)
{
	size_t length = record->at[1].length;
	struct rand_pool_info *pool;
	int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	bool done = false;

	if (fd < 0 || length == 0 || length > 4096) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	pool = must_alloc(sizeof *pool + length);
	pool->entropy_count = (int)length * 8;
	pool->buf_size = (int)length;
	memcpy(pool->buf, record->at[1].data, length);
	done = ioctl(fd, RNDADDENTROPY, pool) == 0 && ioctl(fd, RNDRESEEDCRNG) == 0;
	free(pool);
	close(fd);
	return done;
}

static bool set_hostname(const struct record *record)
{
	const struct bytes *host = &record->at[1], *domain = &record->at[2];

	return sethostname((const char *)host->data, host->length) == 0 &&
	       setdomainname((const char *)domain->data, domain->length) == 0;
}

bool config_nic(const struct record *record,
		bool (*carry_out)(const struct nic *nic, char *error, size_t size), char *error,
		size_t size)
{
	uint64_t mtu;
	struct nic nic = {0};
	char *mac = record_text(record, 1), *name = record_text(record, 2);
	char *address = record_text(record, 3), *gateway = record_text(record, 4);
	bool done = mac && name && address && gateway && record_number(record, 5, 65535, &mtu) &&
		    record_switch(record, 6, &nic.default_route);

	errno = EINVAL;
	snprintf(error, size, "a nic record that is none");
	if (done) {
		nic.mac = mac;
		nic.name = name;
		nic.address = address;
		nic.gateway = gateway;
		nic.mtu = (uint32_t)mtu;
		done = carry_out(&nic, error, size);
	}
	free(mac);
	free(name);
	free(address);
	free(gateway);
	return done;
}

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

/* Has the kernel look again at a virtio slot that was empty when the guest booted. What is driven
 * already (a guest that was booted with it) is fine. */
static bool look_at_slot(const struct record *record)
{
	struct dirent *entry;
	uint64_t slot;
	DIR *folder;

	if (!record_number(record, 1, 255, &slot))
		return false;
	folder = opendir(PLATFORM "/devices");
	while (folder && (entry = readdir(folder)))
		if (is_free_slot(entry->d_name, slot)) {
			put_file(PLATFORM "/drivers/virtio-mmio/bind", entry->d_name);
			break;
		}
	if (folder)
		closedir(folder);
	return true; /* who needs what is there says so */
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

static bool mount_disk(const char *device, const char *target, const char *kind,
		       unsigned long flags, char *error, size_t size)
{
	char path[320];

	load_modules(kind);
	if (!find_disk(device, path, sizeof path))
		return why(error, size, "no disk", device);
	if (!make_folders(target, 0755) || mount(path, target, kind, flags, NULL) < 0)
		return why(error, size, "cannot mount the disk", path);
	return true;
}

static bool mount_root(const struct record *record, char *error, size_t size)
{
	char *kind = record_text(record, 1), *device = record_text(record, 2);
	bool done = kind && device && mount_disk(device, LOWER, kind, MS_RDONLY, error, size);

	free(kind);
	free(device);
	return done;
}

static bool mount_overlay(char *error, size_t size)
{
	const char *options = "lowerdir=" LOWER ",upperdir=" LAYER "/upper,workdir=" LAYER "/work";

	if (!make_folders(LAYER "/upper", 0755) || !make_folders(LAYER "/work", 0755) ||
	    !make_folders(ROOT, 0755) || mount("overlay", ROOT, "overlay", 0, options) < 0)
		return why(error, size, "cannot mount the overlay", ROOT);
	config.layered = true;
	return true;
}

static bool mount_layer(const struct record *record, char *error, size_t size)
{
	char *device = record_text(record, 1);
	bool done = device && mount_disk(device, LAYER, "ext4", MS_NOATIME, error, size) &&
		    mount_overlay(error, size);

	free(device);
	return done;
}

static bool mount_memory_layer(const struct record *record, char *error, size_t size)
{
	char options[64] = "mode=0755";
	uint64_t bytes;

	if (record->at[1].length > 0) {
		if (!record_number(record, 1, UINT64_MAX, &bytes))
			return false;
		snprintf(options, sizeof options, "mode=0755,size=%llu", (unsigned long long)bytes);
	}
	if (!make_folders(LAYER, 0755) || mount("tmpfs", LAYER, "tmpfs", 0, options) < 0)
		return why(error, size, "cannot mount", LAYER);
	return mount_overlay(error, size);
}

/* Mounts a virtiofs share once, at a folder of the agent's own; its path, or NULL. Caller frees. */
static char *share_path(const char *tag, const char *inside, char *error, size_t size)
{
	char folder[256], *path;

	errno = EINVAL;
	if (strchr(tag, '/') || *tag == '.' || !*tag || strlen(tag) > 64) {
		why(error, size, "bad tag", tag);
		return NULL;
	}
	snprintf(folder, sizeof folder, SHARES "/%s", tag);
	if (access(folder, F_OK) < 0) {
		load_modules("virtiofs");
		if (!make_folders(folder, 0755) || mount(tag, folder, "virtiofs", 0, NULL) < 0) {
			why(error, size, "cannot mount the share", tag);
			rmdir(folder);
			return NULL;
		}
	}
	if (asprintf(&path, "%s%s%s", folder, *inside ? "/" : "", inside) < 0)
		return NULL;
	return path;
}

static bool note_mount(const struct record *record, char *error, size_t size)
{
	struct mount_entry entry = {0};
	char *kind = record_text(record, 1), *tag = record_text(record, 2);
	bool known;

	entry.target = record_text(record, 3);
	entry.options = record_text(record, 5);
	known = kind && tag && entry.target && entry.options &&
		record_switch(record, 4, &entry.readonly);
	if (known && strcmp(kind, "virtiofs") == 0) {
		entry.kind = MOUNT_SHARE;
		entry.source = share_path(tag, "", error, size);
		known = entry.source != NULL;
	} else if (known) {
		entry.kind = MOUNT_TMPFS;
		known = strcmp(kind, "tmpfs") == 0;
	}
	free(kind);
	free(tag);
	return known && add_mount(entry);
}

static bool note_bindfile(const struct record *record, char *error, size_t size)
{
	struct mount_entry entry = {.kind = MOUNT_SHARE};
	char *tag = record_text(record, 1), *inside = record_text(record, 2);
	bool done = false;

	entry.target = record_text(record, 3);
	entry.options = strdup("");
	if (tag && inside && entry.target && record_switch(record, 4, &entry.readonly)) {
		entry.source = share_path(tag, inside, error, size);
		done = entry.source && add_mount(entry);
	}
	free(tag);
	free(inside);
	return done;
}

/* A disk with a file system of its own, of which one folder is shown. Mounted once. */
static bool note_volume(const struct record *record, char *error, size_t size)
{
	struct mount_entry entry = {.kind = MOUNT_SHARE};
	char *device = record_text(record, 1), *inside = record_text(record, 2), folder[256];
	bool done = device && inside && strlen(device) < 64 && !strchr(device, '/') &&
		    *inside && *inside != '.' && !strchr(inside, '/');

	errno = EINVAL;
	entry.target = record_text(record, 3);
	entry.options = strdup("");
	if (done)
		snprintf(folder, sizeof folder, VOLUMES "/%s", device);
	if (done && access(folder, F_OK) < 0)
		done = mount_disk(device, folder, "ext4", 0, error, size);
	done = done && asprintf(&entry.source, "%s/%s", folder, inside) > 0 &&
	       make_folders(entry.source, 0755) && entry.target && entry.options &&
	       record_switch(record, 4, &entry.readonly) && add_mount(entry);
	free(device);
	free(inside);
	return done;
}

static struct mount_entry *find_file(const char *target)
{
	for (size_t i = 0; i < config.mount_count; i++)
		if (config.mounts[i].kind == MOUNT_FILE &&
		    strcmp(config.mounts[i].target, target) == 0)
			return &config.mounts[i];
	return NULL;
}

/* Writes content into a file of the agent's that is bound to its target later (or already). */
static bool put_content(const char *target, const uint8_t *data, size_t length, mode_t mode,
			uid_t uid, gid_t gid, bool only_if_there)
{
	struct mount_entry *known = find_file(target);
	struct mount_entry entry = {.kind = MOUNT_FILE, .only_if_there = only_if_there};
	char path[64];
	bool done;
	int fd;

	if (known)
		snprintf(path, sizeof path, "%s", known->source);
	else
		snprintf(path, sizeof path, FILES "/%u", config.file_count++);
	if (!make_folders(FILES, 0755))
		return false;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	done = write(fd, data, length) == (ssize_t)length && fchown(fd, uid, gid) == 0 &&
	       fchmod(fd, mode) == 0;
	close(fd);
	if (!done || known)
		return done;
	entry.source = strdup(path);
	entry.target = strdup(target);
	return entry.source && entry.target && add_mount(entry);
}

static bool note_file(const struct record *record)
{
	char *target = record_text(record, 1);
	uint64_t mode, uid, gid;
	bool done = target && record_octal(record, 2, 07777, &mode) &&
		    record_number(record, 3, INT32_MAX, &uid) &&
		    record_number(record, 4, INT32_MAX, &gid) &&
		    (!config.ready || find_file(target));

	errno = EINVAL;
	done = done && put_content(target, record->at[5].data, record->at[5].length, (mode_t)mode,
				   (uid_t)uid, (gid_t)gid, false);
	free(target);
	return done;
}

bool config_machine_id(const struct record *record)
{
	uint8_t line[33];

	if (record->at[1].length != 32)
		return false;
	memcpy(line, record->at[1].data, 32);
	line[32] = '\n';
	return put_content("/etc/machine-id", line, sizeof line, 0444, 0, 0, true);
}

static bool set_sysctl(const struct record *record, char *error, size_t size)
{
	char *key = record_text(record, 1), *value = record_text(record, 2), path[256];
	bool done = false;

	if (key && value && !strstr(key, "..") && strlen(key) < 200) {
		snprintf(path, sizeof path, "/proc/sys/%s", key);
		for (char *at = path + 10; *at; at++)
			if (*at == '.')
				*at = '/';
		done = put_file(path, value) == 0;
		if (!done)
			why(error, size, "cannot set the sysctl", key);
	}
	free(key);
	free(value);
	return done;
}

int config_always(const struct record *record, char *error, size_t size)
{
	if (record_is(record, "time", 1))
		return set_time(record) || why(error, size, "cannot set", "the clock");
	if (record_is(record, "entropy", 1))
		return set_entropy(record) || why(error, size, "cannot mix in", "entropy");
	if (record_is(record, "hostname", 2))
		return set_hostname(record) || why(error, size, "cannot set", "the host name");
	if (record_is(record, "file", 5))
		return note_file(record) || why(error, size, "cannot put", "a file");
	return -1;
}

static bool apply_once(const struct record *record, char *error, size_t size)
{
	if (record_is(record, "machine-id", 1))
		return config_machine_id(record);
	if (record_is(record, "loopback", 0))
		return net_loopback(error, size);
	if (record_is(record, "nic", 6))
		return config_nic(record, net_configure, error, size);
	if (record_is(record, "root", 2))
		return mount_root(record, error, size);
	if (record_is(record, "layer", 1))
		return mount_layer(record, error, size);
	if (record_is(record, "slot", 1))
		return look_at_slot(record);
	if (record_is(record, "tmpfs", 1))
		return mount_memory_layer(record, error, size);
	if (record_is(record, "readonly-root", 0))
		return config.readonly_root = true;
	if (record_is(record, "mount", 5))
		return note_mount(record, error, size);
	if (record_is(record, "bindfile", 4))
		return note_bindfile(record, error, size);
	if (record_is(record, "volume", 4))
		return note_volume(record, error, size);
	if (record_is(record, "sysctl", 2))
		return set_sysctl(record, error, size);
	if (record_is(record, "shm", 1))
		return record_number(record, 1, UINT64_MAX, &config.shm);
	if (record_is(record, "init", 1))
		return record_switch(record, 1, &config.init);
	return false;
}

bool config_apply(const uint8_t *data, size_t length, char *error, size_t size)
{
	struct records all = {data, length};
	struct record record;
	int next;

	while ((next = record_next(&all, &record)) > 0) {
		int done;
		snprintf(error, size, "a record of CONFIG that is none: %.*s",
			 (int)(record.at[0].length > 40 ? 40 : record.at[0].length),
			 (const char *)record.at[0].data);
		done = config_always(&record, error, size);
		if (done < 0)
			done = !config.ready && apply_once(&record, error, size);
		if (!done)
			return false;
	}
	if (next < 0) {
		snprintf(error, size, "a CONFIG that is cut short");
		return false;
	}
	if (!config.layered) {
		snprintf(error, size, "a CONFIG without root and layer");
		return false;
	}
	config.ready = true;
	return true;
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

void config_undo(void)
{
	sync();
	unmount_volumes();
	for (int tries = 0; config.layered && tries < 40; tries++) {
		umount2(ROOT, 0);
		if (umount2(LAYER, 0) == 0 || errno == EINVAL)
			return;
		usleep(25000);
	}
}
