/* Numbers of the protocol between host and guest: docs/guest-protocol.md. */
#ifndef GEMEL_PROTOCOL_H
#define GEMEL_PROTOCOL_H

#define PROTOCOL_VERSION 1u
#define PORT_NAME "gemel.agent"

#define FRAME_HEADER 12u
#define FRAME_PAYLOAD_MAX 65536u
#define MESSAGE_MAX (8u << 20)
#define WINDOW 262144u
#define CREDIT_MAX 0x7fffffffu
#define PING_MAX 64u

#define FLAG_LAST 1u
#define FLAG_ALL 1u

#define SESSION_CONTROL 0u
#define SESSION_SERVICE 1u

enum host_frame {
	H_CONFIG = 1,
	H_START = 2,
	H_EXEC = 3,
	H_STDIN = 4,
	H_STDIN_EOF = 5,
	H_RESIZE = 6,
	H_SIGNAL = 7,
	H_CREDIT = 8,
	H_SHUTDOWN = 9,
	H_PING = 10,
	H_USAGE = 11,
	H_FREEZE = 12,
	H_THAW = 13,
	H_CLOSE = 14,
	H_PROCESSES = 15,
	H_PREPARE = 16,
	H_CHANGED = 17,
	H_CLOCK = 18,
	H_IDENTITY = 19,
	H_REHEARSE = 20,
};

enum guest_frame {
	G_HELLO = 65,
	G_READY = 66,
	G_STARTED = 67,
	G_STDOUT = 68,
	G_STDERR = 69,
	G_EXIT = 70,
	G_ERROR = 71,
	G_CREDIT = 72,
	G_PONG = 73,
	G_USAGE = 74,
	G_LOG = 75,
	G_FROZEN = 76,
	G_PROCESSES = 77,
	G_CLOCK = 78,
	G_OFF = 79,
};

enum error_kind {
	ERROR_NOT_FOUND = 1,
	ERROR_NOT_RUNNABLE = 2,
	ERROR_FAILED = 3,
};

#endif
