#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if_arp.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util.h"

#define NICS_MAX 32

struct request {
	struct nlmsghdr head;
	char body[256];
};

static bool fail(char *error, size_t size, const char *what, const char *name)
{
	snprintf(error, size, "network interface %s: %s: %s", name, what, strerror(errno));
	return false;
}

static void *add_body(struct request *request, size_t size)
{
	void *at = (char *)request + NLMSG_ALIGN(request->head.nlmsg_len);

	memset(at, 0, size);
	request->head.nlmsg_len = (uint32_t)(NLMSG_ALIGN(request->head.nlmsg_len) + size);
	return at;
}

static void add_attribute(struct request *request, unsigned short type, const void *data,
			  size_t size)
{
	struct rtattr *attribute = add_body(request, RTA_LENGTH(size));

	attribute->rta_type = type;
	attribute->rta_len = (unsigned short)RTA_LENGTH(size);
	memcpy(RTA_DATA(attribute), data, size);
}

/* Sends a request and waits for its acknowledgement; -1 with errno. */
static int ask(struct request *request)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	char answer[4096];
	struct nlmsghdr *head = (struct nlmsghdr *)answer;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	ssize_t done = -1;

	if (fd < 0)
		return -1;
	request->head.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	if (sendto(fd, request, request->head.nlmsg_len, 0, (struct sockaddr *)&kernel,
		   sizeof kernel) >= 0)
		done = recv(fd, answer, sizeof answer, 0);
	close(fd);
	if (done < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)) || head->nlmsg_type != NLMSG_ERROR) {
		errno = EIO;
		return -1;
	}
	errno = -((struct nlmsgerr *)NLMSG_DATA(head))->error;
	return errno ? -1 : 0;
}

static struct ifinfomsg *link_request(struct request *request, int index)
{
	struct ifinfomsg *link;

	memset(request, 0, sizeof *request);
	request->head.nlmsg_len = NLMSG_HDRLEN;
	request->head.nlmsg_type = RTM_NEWLINK;
	link = add_body(request, sizeof *link);
	link->ifi_index = index;
	return link;
}

static int set_up(int index, bool up)
{
	struct request request;
	struct ifinfomsg *link = link_request(&request, index);

	link->ifi_change = IFF_UP;
	link->ifi_flags = up ? IFF_UP : 0;
	return ask(&request);
}

static int set_link(int index, unsigned short type, const void *data, size_t size)
{
	struct request request;

	link_request(&request, index);
	add_attribute(&request, type, data, size);
	return ask(&request);
}

static int set_address(int index, struct in_addr address, unsigned prefix)
{
	struct request request = {.head = {.nlmsg_len = NLMSG_HDRLEN, .nlmsg_type = RTM_NEWADDR}};
	struct ifaddrmsg *about = add_body(&request, sizeof *about);
	uint32_t mask = prefix == 0 ? 0 : htonl(~0u << (32 - prefix));
	struct in_addr broadcast = {address.s_addr | ~mask};

	request.head.nlmsg_flags = NLM_F_CREATE | NLM_F_REPLACE;
	about->ifa_family = AF_INET;
	about->ifa_prefixlen = (unsigned char)prefix;
	about->ifa_index = (unsigned)index;
	add_attribute(&request, IFA_LOCAL, &address, sizeof address);
	add_attribute(&request, IFA_ADDRESS, &address, sizeof address);
	if (prefix < 31)
		add_attribute(&request, IFA_BROADCAST, &broadcast, sizeof broadcast);
	return ask(&request);
}

static int set_default_route(int index, struct in_addr gateway)
{
	struct request request = {.head = {.nlmsg_len = NLMSG_HDRLEN, .nlmsg_type = RTM_NEWROUTE}};
	struct rtmsg *route = add_body(&request, sizeof *route);

	request.head.nlmsg_flags = NLM_F_CREATE | NLM_F_REPLACE;
	route->rtm_family = AF_INET;
	route->rtm_table = RT_TABLE_MAIN;
	route->rtm_protocol = RTPROT_BOOT;
	route->rtm_scope = RT_SCOPE_UNIVERSE;
	route->rtm_type = RTN_UNICAST;
	add_attribute(&request, RTA_GATEWAY, &gateway, sizeof gateway);
	add_attribute(&request, RTA_OIF, &index, sizeof index);
	return ask(&request);
}

static bool hardware_address(const char *name, unsigned char mac[6])
{
	struct ifreq request = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool done;

	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
	done = fd >= 0 && ioctl(fd, SIOCGIFHWADDR, &request) == 0 &&
	       request.ifr_hwaddr.sa_family == ARPHRD_ETHER;
	if (fd >= 0)
		close(fd);
	if (done)
		memcpy(mac, request.ifr_hwaddr.sa_data, 6);
	return done;
}

/* Interfaces that a record has been carried out on. */
static int claimed[NICS_MAX];
static unsigned claimed_count;

static bool is_claimed(int index)
{
	for (unsigned i = 0; i < claimed_count; i++)
		if (claimed[i] == index)
			return true;
	return false;
}

/* Whether it is the machine's: a kernel may bring others, as a dummy. */
static bool is_hardware(const char *name)
{
	char path[64 + IF_NAMESIZE];

	snprintf(path, sizeof path, "/sys/class/net/%s/device", name);
	return access(path, F_OK) == 0;
}

/* Index of the interface with this MAC, else of the first that no record has; 0 without. */
static int find_nic(const unsigned char wanted[6], bool *same)
{
	struct if_nameindex *all = if_nameindex();
	unsigned char mac[6];
	int index = 0;

	*same = false;
	for (struct if_nameindex *at = all; at && at->if_index && !*same; at++) {
		if (is_claimed((int)at->if_index) || !is_hardware(at->if_name) ||
		    !hardware_address(at->if_name, mac))
			continue;
		*same = memcmp(mac, wanted, 6) == 0;
		if (*same || index == 0)
			index = (int)at->if_index;
	}
	if (all)
		if_freenameindex(all);
	if (index && claimed_count < NICS_MAX)
		claimed[claimed_count++] = index;
	return index;
}

bool net_loopback(char *error, size_t size)
{
	return set_up((int)if_nametoindex("lo"), true) == 0 || fail(error, size, "up", "lo");
}

static bool rename_nic(int index, const char *name, char *error, size_t size)
{
	char now[IF_NAMESIZE] = "";

	if (!*name || (if_indextoname((unsigned)index, now) && strcmp(now, name) == 0))
		return true;
	/* a name that another interface bears is freed first: names are given in order */
	if (if_nametoindex(name)) {
		char other[IF_NAMESIZE];
		int holder = (int)if_nametoindex(name);
		snprintf(other, sizeof other, "was%d", holder);
		if (set_up(holder, false) < 0 ||
		    set_link(holder, IFLA_IFNAME, other, strlen(other) + 1) < 0)
			return fail(error, size, "rename", name);
	}
	if (set_up(index, false) < 0 || set_link(index, IFLA_IFNAME, name, strlen(name) + 1) < 0)
		return fail(error, size, "rename", name);
	return true;
}

static bool parse_address(const char *text, struct in_addr *address, unsigned *prefix)
{
	char copy[32];
	char *slash, *end;

	if (strlen(text) >= sizeof copy)
		return false;
	strcpy(copy, text);
	slash = strchr(copy, '/');
	if (!slash)
		return false;
	*slash = 0;
	*prefix = (unsigned)strtoul(slash + 1, &end, 10);
	return slash[1] && !*end && *prefix <= 32 && inet_pton(AF_INET, copy, address) == 1;
}

/* A nic's record, read. */
struct wanted {
	unsigned char mac[6];
	struct in_addr address, gateway;
	unsigned prefix;
};

static bool read_nic(const struct nic *nic, struct wanted *out, char *error, size_t size)
{
	unsigned char *mac = out->mac;

	memset(out, 0, sizeof *out);
	errno = EINVAL;
	if (sscanf(nic->mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2], &mac[3],
		   &mac[4], &mac[5]) != 6)
		return fail(error, size, "bad MAC", nic->name);
	if (*nic->address && !parse_address(nic->address, &out->address, &out->prefix))
		return fail(error, size, "bad address", nic->name);
	if (*nic->gateway && inet_pton(AF_INET, nic->gateway, &out->gateway) != 1)
		return fail(error, size, "bad gateway", nic->name);
	return true;
}

/* The interface's address and route; `up`: it is not up yet. */
static bool set_addresses(int index, const struct nic *nic, const struct wanted *wanted, bool up,
			  char *error, size_t size)
{
	if (*nic->address && set_address(index, wanted->address, wanted->prefix) < 0)
		return fail(error, size, "set address", nic->name);
	if (up && set_up(index, true) < 0)
		return fail(error, size, "up", nic->name);
	if (*nic->gateway && nic->default_route && set_default_route(index, wanted->gateway) < 0)
		return fail(error, size, "set default route", nic->name);
	return true;
}

bool net_configure(const struct nic *nic, char *error, size_t size)
{
	struct wanted wanted;
	bool same;
	int index;

	if (!read_nic(nic, &wanted, error, size))
		return false;
	index = find_nic(wanted.mac, &same);
	errno = ENODEV;
	if (index == 0)
		return fail(error, size, "find", nic->name);
	if (!rename_nic(index, nic->name, error, size))
		return false;
	if (!same && set_link(index, IFLA_ADDRESS, wanted.mac, sizeof wanted.mac) < 0)
		return fail(error, size, "set MAC", nic->name);
	if (nic->mtu && set_link(index, IFLA_MTU, &nic->mtu, sizeof nic->mtu) < 0)
		return fail(error, size, "set MTU", nic->name);
	return set_addresses(index, nic, &wanted, true, error, size);
}

/* Takes every IPv4 address away, and with them the routes. */
static bool drop_addresses(const char *name)
{
	struct ifreq request;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), left = 64;

	while (fd >= 0 && left-- > 0) {
		memset(&request, 0, sizeof request);
		snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
		if (ioctl(fd, SIOCGIFADDR, &request) != 0)
			break;
		memset(&request.ifr_addr, 0, sizeof request.ifr_addr);
		request.ifr_addr.sa_family = AF_INET; /* 0.0.0.0 removes it */
		if (ioctl(fd, SIOCSIFADDR, &request) != 0)
			left = -1;
	}
	if (fd >= 0)
		close(fd);
	return fd >= 0 && left >= 0;
}

/* Interfaces with an IPv6 address that was made of their former MAC. */
static int stale[NICS_MAX];
static unsigned stale_count;

static void renew_ipv6(int index)
{
	char path[96], now[8], name[IF_NAMESIZE];

	if (!if_indextoname((unsigned)index, name))
		return;

	snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
	if (get_file(path, now, sizeof now) <= 0 || *now != '0')
		return;
	put_file(path, "1");
	put_file(path, "0");
}

void net_settle(void)
{
	while (stale_count > 0)
		renew_ipv6(stale[--stale_count]);
}

bool net_readdress(const struct nic *nic, char *error, size_t size)
{
	struct wanted wanted;
	int index = (int)if_nametoindex(nic->name);

	if (!read_nic(nic, &wanted, error, size))
		return false;
	errno = ENODEV;
	if (index == 0 || !is_hardware(nic->name))
		return fail(error, size, "find", nic->name);
	if (!drop_addresses(nic->name))
		return fail(error, size, "take the address from", nic->name);
	if (set_link(index, IFLA_ADDRESS, wanted.mac, sizeof wanted.mac) < 0)
		return fail(error, size, "set MAC", nic->name);
	if (stale_count < NICS_MAX)
		stale[stale_count++] = index;
	return set_addresses(index, nic, &wanted, false, error, size);
}

void net_undo(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	for (unsigned i = 0; i < claimed_count; i++) {
		struct ifreq none = {.ifr_addr.sa_family = AF_INET}; /* 0.0.0.0 takes it away */
		set_up(claimed[i], false);
		if (if_indextoname((unsigned)claimed[i], none.ifr_name))
			ioctl(fd, SIOCSIFADDR, &none);
	}
	claimed_count = 0;
	if (fd >= 0)
		close(fd);
}
