#include "config.h"

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

#include "storage.h"

struct config config = {.shm = 64 << 20};

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

/* Has the kernel look again at a slot that was empty when the guest booted; who needs what is
 * there says so if it is not. */
static bool look_at_slot(const struct record *record)
{
	uint64_t slot;

	if (!record_number(record, 1, 255, &slot))
		return false;
	storage_look(slot);
	return true;
}

static bool mount_root(const struct record *record, char *error, size_t size)
{
	char *kind = record_text(record, 1), *device = record_text(record, 2);
	bool done = kind && device && storage_mount(device, LOWER, kind, MS_RDONLY, error, size);

	free(kind);
	free(device);
	return done;
}

static bool mount_layer(const struct record *record, char *error, size_t size)
{
	char *device = record_text(record, 1);
	bool done = device && storage_mount(device, LAYER, "ext4", MS_NOATIME, error, size) &&
		    storage_overlay(error, size);

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
		return cannot(error, size, "mount", LAYER);
	return storage_overlay(error, size);
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
		entry.source = storage_share(tag, "", error, size);
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
		entry.source = storage_share(tag, inside, error, size);
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
		done = storage_mount(device, folder, "ext4", 0, error, size);
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
			cannot(error, size, "set the sysctl", key);
	}
	free(key);
	free(value);
	return done;
}

int config_always(const struct record *record, char *error, size_t size)
{
	if (record_is(record, "time", 1))
		return set_time(record) || cannot(error, size, "set", "the clock");
	if (record_is(record, "entropy", 1))
		return set_entropy(record) || cannot(error, size, "mix in", "entropy");
	if (record_is(record, "hostname", 2))
		return set_hostname(record) || cannot(error, size, "set", "the host name");
	if (record_is(record, "file", 5))
		return note_file(record) || cannot(error, size, "put", "a file");
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
	if (!storage_ready()) {
		snprintf(error, size, "a CONFIG without root and layer");
		return false;
	}
	config.ready = true;
	return true;
}
