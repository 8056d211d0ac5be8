/* The relay: one for each micro VM. It starts QEMU and owns it, holds the agent's channel, writes
 * the service's log and how it ended, and lets the engine connect as often as it likes. It
 * outlives the engine. Whatever comes from the guest is taken to be hostile. */
#ifndef GEMEL_RELAY_RELAY_H
#define GEMEL_RELAY_RELAY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "console.h"
#include "launch.h"
#include "log.h"
#include "qmp.h"
#include "warm.h"
#include "wire.h"

enum { MAX_CLIENTS = 128, MAX_SESSIONS = 512, ATTACH_BACKLOG = 1 << 20, CLIENT_LIMIT = 8 << 20,
       GUEST_LIMIT = 64 << 20, GUEST_CROWDED = 4 << 20, STALL_MS = 10000, KILL_MS = 2000,
       LINGER_MS = 5000, LOOK_MS = 250, IDLE_MS = 10000, CLONE_CPU_MS = 3000,
       CLOCK_TRIES = 8, CLOCK_ERROR_MS = 40, ATTEMPTS = 2, GUEST_LOG_MOST = 256 * 1024 };

enum state { BOOTING, REHEARSING, STANDING_BY, CONFIGURING, STARTING, RUNNING, STOPPING, DONE };

struct client {
    int fd; /* -1: free */
    struct queue in, out;
    bool attached, stdin_ended, closing, later;
    bool asked[256]; /* by the type of the answer that it waits for */
    struct queue message;  /* an EXEC that is not whole yet */
    struct queue input;    /* for the service's standard input, not yet taken by the guest */
    uint32_t input_credit; /* so much more may it send */
    int64_t moved_at;      /* when its queue last got shorter */
};

/* An exec: the guest's number for it, and the client's. */
struct session {
    bool used;
    uint32_t guest, local;
    struct client *client; /* NULL: it has gone, and the program goes on without it */
    uint32_t out_credit; /* so many bytes may the guest send */
    uint32_t in_credit;  /* so many may the client send */
};

struct relay {
    struct launch launch;
    struct log log;
    enum state state;
    int64_t deadline; /* of the state, in ms of the monotonic clock; 0: none */
    int64_t kill_deadline;
    int64_t used_at; /* when a client was last there; for an idle VM */
    int attempts;
    int64_t launched_at, cpu_before; /* ms of CPU time that the VMM had used by then */
    int times_sent; /* of the clock alone, after the configuration */
    int64_t time_sent;
    bool setting_clock;          /* of a running guest: its answer is due */
    int jumps;                   /* tells when the host's clock is set, or has slept; -1: nothing does */
    int64_t clock_due, clock_asked; /* ms when it is asked next; ns when it was, 0: it is not */
    bool start_due; /* the guest is ready, and not all who want to be there are attached */

    pid_t vmm, watcher, shares[MAX_SHARES];
    int watch; /* what the watcher tells of; -1 without one */
    int agent, errors, qmp; /* qmp: -1 but for templates and clones that are being made */
    char qmp_line[8192];
    size_t qmp_used;
    bool saving;      /* of a template: its state is being written */
    bool plugging;    /* of a clone: it runs, and gets its shares */
    bool taken;       /* the VMM stood by, and is an instance's now */
    struct queue orders;  /* the instance's records, not whole yet */
    int taps[MAX_TAPS];   /* of a VM that stands by: they become the instance's */
    int host_net, peer;   /* then: the host's network namespace, and who listens to the guest */
    pid_t mover;          /* has the taps become the instance's */
    bool configured;      /* the guest is set up, and waits for that */
    bool again;       /* it failed before its service was to start: another way is tried */
    bool fell_back;   /* the clone did not come up: a cold boot is due, or done */
    char because[400]; /* why */
    struct queue from_guest, to_guest;
    char error_tail[1024]; /* the end of what QEMU and its helpers said */
    char guest_said[256];  /* the guest's last line about itself */
    struct console console;
    int guest_log;
    size_t guest_log_size;

    char last_words[2500]; /* the report of a failed start */
    int ready; /* where the start is reported to; -1 once it has been */
    int listener, signals;
    bool exit_written;
    bool asked[256]; /* by the type of the answer: a request is under way */

    struct warm warm;
    uint32_t next_session;
    uint32_t service_out_credit, service_owed, service_in_credit;
    struct client clients[MAX_CLIENTS];
    struct session sessions[MAX_SESSIONS];
};

int64_t now_ms(void);

/* The VM is over: reports to the starter, or writes the exit file; the loop then ends all. */
void relay_fail(struct relay *r, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void relay_finish(struct relay *r, int status, bool oom, const char *error);
void relay_started(struct relay *r);
void relay_tell(struct relay *r, const char *line);
const char *relay_enter(struct relay *r);
void relay_kill(struct relay *r);

/* vm.c */
void vm_launch(struct relay *r);
void vm_reap(struct relay *r);
void vm_end(struct relay *r);
int64_t vm_cpu_ms(const struct relay *r);
void guest_shut_down(struct relay *r);
void vm_hear_errors(struct relay *r);
void vm_hear_console(struct relay *r);

/* standby.c */
void standby_rehearse(struct relay *r);
void standby_ready(struct relay *r);
void standby_rest(struct relay *r);
void standby_read(struct relay *r);
/* Whether the process that ended was the one that moves the taps. */
bool standby_moved(struct relay *r, pid_t pid, int status);

/* guest.c */
void guest_up(struct relay *r);
void guest_configured(struct relay *r);
void guest_put_fresh(struct relay *r, struct queue *q);
void guest_read(struct relay *r);
void guest_send(struct relay *r, uint32_t session, uint8_t type, uint8_t flags, const void *data,
                size_t n);
bool guest_owed(const struct relay *r);
void guest_pay(struct relay *r);
void guest_start(struct relay *r);
void guest_service_runs(struct relay *r);
void guest_send_time(struct relay *r);
void guest_ask(struct relay *r, uint8_t request, uint8_t answer);

/* clients.c */
void client_accept(struct relay *r);
void client_read(struct relay *r, struct client *c);
void client_drop(struct relay *r, struct client *c);
void client_send(struct relay *r, struct client *c, uint32_t session, uint8_t type, uint8_t flags,
                 const void *data, size_t n);
void clients_flush(struct relay *r);
void clients_pump_input(struct relay *r);
bool clients_stall(struct relay *r);
struct session *session_find(struct relay *r, uint32_t guest);

#endif
