/* Keeps the guest's clock at the host's. A guest is without what the host has to keep its own right,
 * and a host that slept, or whose clock was set, leaves it behind. So it is asked what time it has:
 * every minute, after a pause, and when the kernel tells that the host's clock has jumped (which it
 * does when it wakes as well). A clock that is certainly off is set anew. */
#include <errno.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "relay.h"

enum { EVERY_MS = 60000, SLACK_MS = 20 };

static int64_t host_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* A timer that never ends, but is told of jumps. */
static void arm(int fd)
{
    struct itimerspec never = {.it_value = {.tv_sec = (time_t)1 << 33}};
    timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL);
}

void clock_open(struct relay *r)
{
    r->jumps = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    if (r->jumps >= 0)
        arm(r->jumps);
}

void clock_jumped(struct relay *r)
{
    uint64_t expired;
    if (read(r->jumps, &expired, sizeof expired) < 0 && errno != ECANCELED)
        return;
    arm(r->jumps);
    clock_ask(r);
}

void clock_ask(struct relay *r)
{
    if (r->state != RUNNING)
        return;
    r->clock_due = now_ms() + EVERY_MS;
    r->clock_asked = host_ns();
    guest_send(r, 0, H_CLOCK, 0, NULL, 0);
}

bool clock_answer(struct relay *r, const struct frame *f)
{
    int64_t slack = SLACK_MS * 1000000LL, now = host_ns(), asked = r->clock_asked;
    uint64_t told = 0;
    if (f->length != sizeof told || !asked)
        return false;
    for (size_t i = 0; i < sizeof told; i++)
        told |= (uint64_t)f->payload[i] << 8 * i;
    r->clock_asked = 0;
    if (told > INT64_MAX || (int64_t)told < asked - slack || (int64_t)told > now + slack) {
        r->times_sent = 0;
        r->setting_clock = true;
        guest_send_time(r);
    }
    return true;
}

void clock_look(struct relay *r, int64_t now)
{
    if (!r->clock_due)
        r->clock_due = now + EVERY_MS;
    if (now >= r->clock_due)
        clock_ask(r);
}
