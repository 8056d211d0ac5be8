/* A tap's open file belongs to the network namespace that it was opened in, whatever the interface
 * does that it is attached to. So the rehearsal's interface can be in a namespace of the relay's own,
 * which nobody else on the host sees, and when it is gone the same open file, which the VMM has,
 * is attached to an interface of the host's. */
#include "standbynet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay.h"

/* The address that the first network of every rehearsal has as its gateway (rehearsal.py). */
static const char gateway[] = "192.0.2.1", mask[] = "255.255.255.240";

struct request {
    struct nlmsghdr head;
    struct ifinfomsg link;
    struct rtattr attribute;
    unsigned value;
};

/* Sends a request about an interface and waits for its acknowledgement; -1 with errno. */
static int ask(int fd, int type, unsigned index, pid_t namespace)
{
    struct request request = {
        .head = {.nlmsg_len = offsetof(struct request, attribute), .nlmsg_type = (uint16_t)type,
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
        .link = {.ifi_index = (int)index},
        .attribute = {RTA_LENGTH(sizeof request.value), IFLA_NET_NS_PID},
        .value = (unsigned)namespace,
    };
    char answer[512];
    struct nlmsghdr *head = (struct nlmsghdr *)answer;
    if (namespace)
        request.head.nlmsg_len = sizeof request;
    ssize_t got = send(fd, &request, request.head.nlmsg_len, 0);
    if (got > 0)
        got = recv(fd, answer, sizeof answer, 0);
    if (got < 0)
        return -1;
    if (got < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)) || head->nlmsg_type != NLMSG_ERROR) {
        errno = EIO;
        return -1;
    }
    errno = -((struct nlmsgerr *)NLMSG_DATA(head))->error;
    return errno ? -1 : 0;
}

static int open_netlink(void)
{
    return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
}

static bool set_address(int fd, const char *name, unsigned long request, const char *text)
{
    struct ifreq about = {.ifr_addr.sa_family = AF_INET};
    memcpy(about.ifr_name, name, strlen(name));
    inet_pton(AF_INET, text, &((struct sockaddr_in *)&about.ifr_addr)->sin_addr);
    return ioctl(fd, request, &about) == 0;
}

static bool set_up(int fd, const char *name, bool up)
{
    struct ifreq about = {.ifr_flags = up ? IFF_UP | IFF_RUNNING : 0};
    memcpy(about.ifr_name, name, strlen(name));
    return ioctl(fd, SIOCSIFFLAGS, &about) == 0;
}

/* The kernel alone answers the guest: nobody takes the connection. */
static bool listen_to_guest(struct relay *r)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(REHEARSAL_PORT)};
    const char *name = r->launch.taps[0].name;
    r->peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return r->peer >= 0 && set_address(r->peer, name, SIOCSIFADDR, gateway) &&
           set_address(r->peer, name, SIOCSIFNETMASK, mask) && set_up(r->peer, name, true) &&
           bind(r->peer, (struct sockaddr *)&address, sizeof address) == 0 &&
           listen(r->peer, 1) == 0;
}

bool standbynet_open(struct relay *r)
{
    const struct launch *l = &r->launch;
    unsigned index[MAX_TAPS];
    int host = open_netlink();
    bool done = host >= 0;
    for (size_t i = 0; done && i < l->n_taps; i++)
        done = (index[i] = if_nametoindex(l->taps[i].name)) != 0;
    r->host_net = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    done = done && r->host_net >= 0 && unshare(CLONE_NEWNET) == 0;
    for (size_t i = 0; done && i < l->n_taps; i++)
        done = ask(host, RTM_NEWLINK, index[i], getpid()) == 0;
    if (done && l->n_taps)
        done = listen_to_guest(r);
    if (!done)
        relay_fail(r, "failed", "cannot make the rehearsal's network: %s", strerror(errno));
    if (host >= 0)
        close(host);
    return done;
}

void standbynet_quiet(struct relay *r)
{
    if (r->peer < 0)
        return;
    set_up(r->peer, r->launch.taps[0].name, false);
    close(r->peer);
    r->peer = -1;
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

struct kept { int header; unsigned wanted; };

/* Takes the rehearsal's interface away from an open file. */
static int let_go(int fd, int netlink, const char *name, struct kept *kept)
{
    kept->wanted = offloads(name);
    if (ioctl(fd, TUNGETVNETHDRSZ, &kept->header) != 0)
        return -1;
    return ask(netlink, RTM_DELLINK, if_nametoindex(name), 0);
}

/* Attaches it to the instance's, where what the VMM had set is set anew. */
static int attach(int fd, const char *name, const struct kept *kept)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int header = kept->header, room = 0x7fffffff;
    if (strlen(name) >= IFNAMSIZ || !if_nametoindex(name)) {
        errno = ENODEV; /* it would be made, on no bridge */
        return -1;
    }
    memcpy(request.ifr_name, name, strlen(name));
    if (ioctl(fd, TUNSETIFF, &request) != 0 || ioctl(fd, TUNSETVNETHDRSZ, &header) != 0 ||
        ioctl(fd, TUNSETSNDBUF, &room) != 0)
        return -1;
    if (kept->wanted && ioctl(fd, TUNSETOFFLOAD, kept->wanted | TUN_F_UFO) == 0)
        return 0; /* kernels without UFO refuse it */
    return ioctl(fd, TUNSETOFFLOAD, kept->wanted);
}

/* Taking an interface away takes the kernel some ten milliseconds, in which the guest is set up.
 * The status is an errno. */
static _Noreturn void move_all(struct relay *r, const struct launch *next)
{
    struct kept kept[MAX_TAPS];
    int netlink = open_netlink();
    for (size_t i = 0; i < next->n_taps; i++)
        if (let_go(r->taps[i], netlink, r->launch.taps[i].name, &kept[i]) != 0)
            _exit(errno);
    if (setns(r->host_net, CLONE_NEWNET) != 0)
        _exit(errno);
    for (size_t i = 0; i < next->n_taps; i++)
        if (attach(r->taps[i], next->taps[i].name, &kept[i]) != 0)
            _exit(errno);
    _exit(0);
}

bool standbynet_move(struct relay *r, const struct launch *next)
{
    if (next->n_taps) {
        r->mover = fork();
        if (r->mover == 0)
            move_all(r, next);
    }
    bool done = r->mover >= 0 && setns(r->host_net, CLONE_NEWNET) == 0;
    if (!done)
        relay_fail(r, "failed", "cannot go back to the host's networks: %s", strerror(errno));
    for (size_t i = 0; i < next->n_taps; i++) {
        close(r->taps[i]);
        r->taps[i] = -1;
    }
    close(r->host_net);
    r->host_net = -1;
    return done;
}
