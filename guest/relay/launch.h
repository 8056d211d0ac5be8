/* What to run: read from standard input as records (docs/guest-protocol.md), so that the
 * secrets among them never lie in a file. */
#ifndef GEMEL_RELAY_LAUNCH_H
#define GEMEL_RELAY_LAUNCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { MAX_DISKS = 8, MAX_TAPS = 32, MAX_SHARES = 64, MAX_BINDS = 16, MAX_GROUPS = 8,
       MAX_CGROUPS = 16, MAX_ARGS = 512, MAX_LAUNCH = 64 << 20 };

struct disk { int fd; const char *path; bool writable, alone; /* alone: nobody else may have it */ };
struct tap { int fd; const char *name; };
struct bind { const char *source, *target; };

/* A folder or a single file of the host, shown to the guest by a virtiofsd of its own. */
struct share {
    int fd; /* in QEMU: the connection to it */
    const char *source, *name; /* name: "" for a folder, else what the file is called inside */
    bool readonly;
    const char *tag; /* the guest's name for it, if changes by the host are told; else NULL */
    char **argv;
};

struct launch {
    const char *dir, *log;
    uint64_t log_size;
    long attached; /* the service starts when so many have attached */
    bool idle;  /* start no service: the VM is for its helpers alone, and ends when they do */
    bool template; /* save the guest at its greeting, and end */
    bool cloning; /* run `clone_argv`; falls back to `argv` when that does not come up */
    bool probe; /* only find out whether the guest comes up: end at its greeting */
    const unsigned char *config, *start; /* whole frames, ready to be sent */
    size_t config_length, start_length;
    uid_t uid;
    gid_t gid, groups[MAX_GROUPS];
    int boot_ms, boot_cpu_ms, config_ms, stop_ms, clone_ms, agent_fd;
    int console_fd; /* 0: the guest has none */
    /* Of templates and clones: the guest's memory and the state of its devices are inherited
     * descriptors; memory_fd and qmp_fd are the VMM's numbers. */
    int memory_from, state_from, memory_fd, qmp_fd;
    size_t n_groups, n_cgroups, n_disks, n_taps, n_shares, n_binds, n_args;
    const char *cgroups[MAX_CGROUPS];
    struct disk disks[MAX_DISKS];
    struct tap taps[MAX_TAPS];
    struct share shares[MAX_SHARES];
    struct bind binds[MAX_BINDS];
    char **argv; /* QEMU and its arguments, ended by NULL */
    char **clone_argv; /* the same for a clone of a template, or NULL */
    const char *plug;  /* QMP commands that give a clone its shares, or NULL */
    bool source;  /* its memory is its own: snapshots can be taken while it runs */
    /* Of a copy of a VM whose service ran: IDENTITY, the hook's EXEC (or NULL), and the disk that
     * takes the place of the writable one if all goes well. */
    const unsigned char *identity, *hook;
    size_t identity_length, hook_length;
    const char *warm_disk;
    int standby_fd; /* stand by for an instance, whose records come from there; 0: it is one */
    const unsigned char *rehearsal; /* records of a REHEARSE, without time and entropy */
    size_t rehearsal_length;
    const char *adopt; /* QMP commands that give a VM that stood by the instance's disks, or NULL */
    const char *preload; /* a library that a clone's QEMU is started with, in its jail, or NULL */
};

/* Reads records from fd to its end. NULL, or what is wrong. */
const char *launch_read(struct launch *launch, int fd);
/* The same of bytes that have been read; the launch points into them. */
const char *launch_parse(struct launch *launch, unsigned char *data, size_t length);

#endif
