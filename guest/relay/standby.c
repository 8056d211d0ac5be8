/* VMs that stand by. Such a VM is a clone that belongs to no instance: its agent has answered and
 * has rehearsed what an instance's start needs, so that the emulator has translated the guest's
 * kernel for it. When an instance starts, its records come over a pipe: the relay becomes the
 * instance's, moves the VMM into its control groups, puts its disks and taps in the place of
 * those of the rehearsal, and goes on as with any clone. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "relay.h"
#include "standbynet.h"

enum { FIRST_SET = 64, /* of the descriptors that the VMM is handed; as in standby.py */
       REST_MS = 3000  /* the guest tells what memory it has freed two seconds later */ };

static void say_to_vmm(struct relay *r, const char *command)
{
    size_t n = strlen(command);
    if (r->state != DONE && send(r->qmp, command, n, MSG_NOSIGNAL) != (ssize_t)n)
        relay_fail(r, "failed", "cannot command the VMM: %s", strerror(errno));
}

/* Until it is needed the VM stands still, which takes no CPU time at all. */
void standby_rest(struct relay *r)
{
    r->deadline = 0;
    say_to_vmm(r, "{\"execute\":\"stop\"}\n");
}

/* With fresh randomness: the guest's kernel makes secrets of its own when it first needs them. */
void standby_rehearse(struct relay *r)
{
    struct queue q = {.limit = FRAME_PAYLOAD_MAX};
    guest_put_fresh(r, &q);
    if (r->state == DONE || !queue_put(&q, r->launch.rehearsal, r->launch.rehearsal_length))
        relay_fail(r, "failed", "the rehearsal is too large");
    guest_send(r, 0, H_REHEARSE, FLAG_LAST, q.data, queue_used(&q));
    guest_send(r, 0, H_PING, 0, NULL, 0); /* answered when it is over */
    queue_free(&q);
    r->state = r->state == DONE ? DONE : REHEARSING;
    r->deadline = now_ms() + r->launch.config_ms;
}

void standby_ready(struct relay *r)
{
    standbynet_quiet(r);
    r->state = STANDING_BY;
    r->deadline = now_ms() + REST_MS;
    relay_tell(r, "standby\n");
}

/* Whether the instance's VM would be the same but for what can be changed. */
static bool fits(const struct launch *l, const struct launch *next)
{
    if (!next->cloning || next->standby_fd || next->n_shares || next->plug || !next->adopt ||
        next->n_disks != l->n_disks || next->n_taps != l->n_taps ||
        next->agent_fd != l->agent_fd || next->idle || next->source || next->identity)
        return false;
    for (size_t i = 0; i < l->n_disks; i++)
        if (next->disks[i].writable != l->disks[i].writable || next->disks[i].alone)
            return false;
    for (char **a = l->clone_argv, **b = next->clone_argv;; a++, b++) {
        if (!*a || !*b)
            return *a == *b;
        bool nic = !strncmp(*a, "virtio-net-device,", 18); /* its MAC is the restored one */
        if (nic ? strncmp(*a, *b, 18) : strcmp(*a, *b))
            return false;
    }
}

/* The VMM gets the disks' descriptors, then is told to put them in the place of the others. */
static void hand_over_disks(struct relay *r, const struct launch *next)
{
    char text[128];
    for (size_t i = 0; i < next->n_disks && r->state != DONE; i++) {
        int fd = open(next->disks[i].path,
                      (next->disks[i].writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
        if (fd < 0) {
            relay_fail(r, "failed", "cannot open %s: %s", next->disks[i].path, strerror(errno));
            return;
        }
        int n = snprintf(text, sizeof text,
                         "{\"execute\":\"add-fd\",\"arguments\":{\"fdset-id\":%zu}}\n",
                         FIRST_SET + i);
        if (!qmp_command(r, text, (size_t)n, fd))
            relay_fail(r, "failed", "cannot command the VMM: %s", strerror(errno));
        close(fd);
    }
    if (r->state != DONE)
        qmp_plug(r, next->adopt);
}

/* Leaves what was the relay's own while nobody needed the VM. */
static void leave(struct relay *r)
{
    for (int i = 0; i < MAX_CLIENTS; i++)
        if (r->clients[i].fd >= 0)
            client_drop(r, &r->clients[i]);
    unlink("relay.sock");
    close(r->listener);
    close(r->log.fd);
    if (r->guest_log >= 0)
        close(r->guest_log);
    r->listener = r->log.fd = r->guest_log = -1;
    r->guest_log_size = 0;
}

/* What the VMM has used before is no cost of the instance. */
static void note_spent(const struct relay *r)
{
    char text[32];
    snprintf(text, sizeof text, "%lld\n", (long long)r->cpu_before);
    write_whole("spent", text);
}

static void take_over(struct relay *r)
{
    static struct launch next;
    const char *wrong = launch_parse(&next, r->orders.data + r->orders.start, queue_used(&r->orders));
    if (!wrong && !fits(&r->launch, &next))
        wrong = "it is another kind of VM";
    if (wrong) {
        relay_fail(r, "failed", "cannot take the instance's records: %s", wrong);
        return;
    }
    r->launched_at = now_ms();
    r->cpu_before = vm_cpu_ms(r);
    if (!r->deadline)
        say_to_vmm(r, "{\"execute\":\"cont\"}\n");
    hand_over_disks(r, &next);
    if (r->state == DONE || !standbynet_move(r, &next))
        return;
    next.memory_from = r->launch.memory_from;
    next.state_from = r->launch.state_from;
    close(r->launch.standby_fd);
    leave(r);
    r->launch = next;
    wrong = relay_enter(r);
    if (wrong) {
        r->launch.cloning = false;
        relay_fail(r, "failed", "%s: %s", wrong, strerror(errno));
        return;
    }
    r->taken = true;
    note_spent(r);
    r->deadline = now_ms() + r->launch.config_ms;
    relay_tell(r, "taken\n");
}

bool standby_moved(struct relay *r, pid_t pid, int status)
{
    if (!r->mover || pid != r->mover)
        return false;
    r->mover = 0;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        relay_fail(r, "failed", "its networks cannot be taken over: %s",
                   WIFEXITED(status) ? strerror(WEXITSTATUS(status)) : "killed");
    else if (r->configured)
        guest_configured(r);
    return true;
}

void standby_read(struct relay *r)
{
    int got = queue_read(&r->orders, r->launch.standby_fd);
    if (got < 0 || queue_used(&r->orders) == r->orders.limit ||
        (got == 0 && !queue_used(&r->orders)))
        relay_fail(r, "failed", "nobody needs the VM any more");
    else if (got == 0)
        take_over(r);
}
