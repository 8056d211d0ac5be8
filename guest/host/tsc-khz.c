/* Prints the rate of this processor's time stamp counter in kHz (0: it has none).
 * An emulated guest reads the same counter, and is told its rate at boot. */
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#if defined(__x86_64__)
#include <x86intrin.h>

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* The counter and the clock at one moment: the reading with the least between them. */
static void sample(uint64_t *ticks, int64_t *ns)
{
	int64_t best = INT64_MAX;

	for (int i = 0; i < 16; i++) {
		int64_t before = now_ns();
		uint64_t read = __rdtsc();
		int64_t after = now_ns();
		if (after - before < best) {
			best = after - before;
			*ticks = read;
			*ns = before + best / 2;
		}
	}
}

int main(void)
{
	uint64_t first = 0, second = 0;
	int64_t from = 0, to = 0;
	struct timespec pause = {0, 30000000};

	sample(&first, &from);
	nanosleep(&pause, NULL);
	sample(&second, &to);
	if (to <= from)
		return 1;
	printf("%llu\n", (unsigned long long)((double)(second - first) * 1e6 / (double)(to - from)));
	return 0;
}
#else
int main(void)
{
	puts("0");
	return 0;
}
#endif
