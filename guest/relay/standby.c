/* VMs that stand by. Such a VM is a clone that belongs to no instance: its agent has answered and
 * has rehearsed what an instance's start needs, so that the emulator has translated the guest's
 * kernel for it. When an instance starts, its records come over a pipe: the relay becomes the
 * instance's, moves the VMM into its control groups, puts its disks and taps in the place of
 * those of the rehearsal, and goes on as with any clone. */
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay.h"

enum { FIRST_SET = 64 }; /* of the descriptors that the VMM is handed; as in standby.py */

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
    r->state = STANDING_BY;
    r->deadline = 0;
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

static int delete_interface(unsigned index)
{
    struct {
        struct nlmsghdr head;
        struct ifinfomsg link;
    } request = {.head = {.nlmsg_len = sizeof request, .nlmsg_type = RTM_DELLINK,
                          .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
                 .link = {.ifi_index = (int)index}};
    char answer[512];
    struct nlmsghdr *head = (struct nlmsghdr *)answer;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    ssize_t got = fd < 0 ? -1 : send(fd, &request, sizeof request, 0);
    if (got > 0)
        got = recv(fd, answer, sizeof answer, 0);
    if (fd >= 0)
        close(fd);
    if (got < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)) || head->nlmsg_type != NLMSG_ERROR)
        return -1;
    errno = -((struct nlmsgerr *)NLMSG_DATA(head))->error;
    return errno ? -1 : 0;
}

/* What the VMM has set at the interface, as far as it can be read: the guest has agreed to all
 * of the offloads or to none. */
static unsigned offloads(const char *name)
{
    struct ethtool_value value = {.cmd = ETHTOOL_GTSO};
    struct ifreq request = {.ifr_data = (char *)&value};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memcpy(request.ifr_name, name, strlen(name) + 1);
    int done = fd < 0 ? -1 : ioctl(fd, SIOCETHTOOL, &request);
    if (fd >= 0)
        close(fd);
    return done == 0 && value.data ? TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN : 0;
}

/* The VMM's end of a tap goes from the rehearsal's interface, which ends, to the instance's: the
 * open file is the same in both processes. The VMM has set things at the interface, which are set
 * at the new one. -1 with errno. */
static int move_tap(int fd, const char *from, const char *to)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int header = 0, room = 0x7fffffff;
    if (strlen(from) >= IFNAMSIZ || strlen(to) >= IFNAMSIZ || !if_nametoindex(to)) {
        errno = ENODEV;
        return -1;
    }
    unsigned wanted = offloads(from);
    if (ioctl(fd, TUNGETVNETHDRSZ, &header) != 0 || delete_interface(if_nametoindex(from)) != 0)
        return -1;
    memcpy(request.ifr_name, to, strlen(to));
    if (ioctl(fd, TUNSETIFF, &request) != 0 || ioctl(fd, TUNSETVNETHDRSZ, &header) != 0 ||
        ioctl(fd, TUNSETSNDBUF, &room) != 0)
        return -1;
    if (wanted && ioctl(fd, TUNSETOFFLOAD, wanted | TUN_F_UFO) == 0)
        return 0; /* kernels without UFO refuse it */
    return ioctl(fd, TUNSETOFFLOAD, wanted);
}

static bool move_taps(struct relay *r, const struct launch *next)
{
    for (size_t i = 0; i < next->n_taps; i++) {
        int done = move_tap(r->taps[i], r->launch.taps[i].name, next->taps[i].name);
        int error = errno;
        close(r->taps[i]);
        r->taps[i] = -1;
        if (done != 0) {
            relay_fail(r, "failed", "cannot take over the tap %s: %s", next->taps[i].name,
                       strerror(error));
            return false;
        }
    }
    return true;
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
    hand_over_disks(r, &next);
    if (r->state == DONE || !move_taps(r, &next))
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
    r->deadline = now_ms() + r->launch.config_ms;
    relay_tell(r, "taken\n");
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
