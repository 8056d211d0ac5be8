/* From the kernel's hands to a machine on which the agent can work. */
#ifndef GEMEL_BOOT_H
#define GEMEL_BOOT_H

/* Mounts /proc, /sys, /dev; loads the modules of /modules.list. Ends the VM if it cannot. */
void boot(void);

#endif
