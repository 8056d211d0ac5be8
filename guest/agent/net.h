/* The guest's network interfaces, by rtnetlink. */
#ifndef GEMEL_NET_H
#define GEMEL_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nic {
	const char *mac;
	const char *name;
	const char *address; /* with prefix length, or empty */
	const char *gateway; /* or empty */
	uint32_t mtu;
	bool default_route;
};

bool net_loopback(char *error, size_t size);
bool net_configure(const struct nic *nic, char *error, size_t size);
/* Takes back what net_configure() did, but for MACs and names. */
void net_undo(void);

/* Gives an interface that has this name already, and is up, another MAC and address. */
bool net_readdress(const struct nic *nic, char *error, size_t size);

/* What of that takes its time and nobody waits for: addresses of the link (IPv6) are renewed. */
void net_settle(void);

#endif
