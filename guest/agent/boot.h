/* From the kernel's hands to a machine on which the agent can work. */
#ifndef GEMEL_BOOT_H
#define GEMEL_BOOT_H

/* Mounts /proc, /sys, /dev; loads the modules that every guest needs. Ends the VM if it cannot. */
void boot(void);

/* Loads the modules that a file system needs ("": every guest); what is built in is fine. */
void load_modules(const char *wanted);

#endif
