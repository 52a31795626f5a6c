// SPDX-License-Identifier: Apache-2.0
/*
 * forwarder: a wire with a delay between two network namespaces.
 *
 *   forwarder NETNS_A INTERFACE_A NETNS_B INTERFACE_B DELAY_US
 *
 * It makes a TAP device in each namespace and carries every frame from one to the other, in order, DELAY_US after it
 * was read. This stands in for netem, which not every kernel has; it is written in C because making a TAP device takes
 * an ioctl (TUNSETIFF), which Node does not offer. Frames carry their virtio header, so that segments larger than the
 * MTU and checksums not yet filled in cross as they do on a veth pair.
 *
 * Prints "ready" once both devices exist. They vanish with the process, which ends when its standard input closes or
 * its parent dies. A direction holds at most QUEUE_BYTES; what comes on top of that is dropped, as on a real wire.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define QUEUE_BYTES (64u << 20)
#define FRAME_BYTES (64u * 1024 + 256)
#define READS_PER_TURN 64
#define NS_PER_S 1000000000ull

struct frame {
	struct frame *next;
	uint64_t due_ns;
	size_t bytes;
	unsigned char data[];
};

/* One direction: what was read from one device and waits to be written to the other. */
struct queue {
	int from;
	int to;
	struct frame *first;
	struct frame *last;
	size_t bytes;
};

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static int tap_open(const char *netns, const char *name)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int netns_fd, fd;

	if (strlen(name) >= sizeof(request.ifr_name)) {
		fprintf(stderr, "interface name too long: %s\n", name);
		exit(1);
	}
	memcpy(request.ifr_name, name, strlen(name));
	netns_fd = open(netns, O_RDONLY | O_CLOEXEC);
	if (netns_fd < 0 || setns(netns_fd, CLONE_NEWNET))
		fail(netns);
	close(netns_fd);
	/* A TAP device belongs to the namespace in which /dev/net/tun was opened. */
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fail("/dev/net/tun");
	if (ioctl(fd, TUNSETIFF, &request))
		fail("TUNSETIFF");
	if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6))
		fail("TUNSETOFFLOAD");
	return fd;
}

static void queue_read(struct queue *queue, uint64_t delay_ns)
{
	static unsigned char buffer[FRAME_BYTES];
	int reads;

	for (reads = 0; reads < READS_PER_TURN; reads++) {
		ssize_t bytes = read(queue->from, buffer, sizeof(buffer));
		struct frame *frame;

		/* EIO: the device is down; what it would send does not exist. */
		if (bytes <= 0)
			return;
		if (queue->bytes + (size_t)bytes > QUEUE_BYTES)
			continue;
		frame = malloc(sizeof(*frame) + (size_t)bytes);
		if (!frame)
			continue;
		frame->next = NULL;
		frame->due_ns = now_ns() + delay_ns;
		frame->bytes = (size_t)bytes;
		memcpy(frame->data, buffer, (size_t)bytes);
		if (queue->last)
			queue->last->next = frame;
		else
			queue->first = frame;
		queue->last = frame;
		queue->bytes += frame->bytes;
	}
}

static void queue_write(struct queue *queue)
{
	while (queue->first && queue->first->due_ns <= now_ns()) {
		struct frame *frame = queue->first;

		/* A write fails only when the far device is down or the kernel has no memory: the frame is lost then.
		 */
		if (write(queue->to, frame->data, frame->bytes) < 0 && errno == EINTR)
			continue;
		queue->first = frame->next;
		if (!queue->first)
			queue->last = NULL;
		queue->bytes -= frame->bytes;
		free(frame);
	}
}

static uint64_t wait_ns(const struct queue *queues)
{
	uint64_t due = UINT64_MAX, now = now_ns();
	int i;

	for (i = 0; i < 2; i++)
		if (queues[i].first && queues[i].first->due_ns < due)
			due = queues[i].first->due_ns;
	if (due == UINT64_MAX)
		return due;
	return due > now ? due - now : 0;
}

int main(int argc, char **argv)
{
	struct queue queues[2] = {0};
	struct pollfd polled[3];
	uint64_t delay_ns;
	int a, b;

	if (argc != 6) {
		fprintf(stderr, "usage: forwarder NETNS_A INTERFACE_A NETNS_B INTERFACE_B DELAY_US\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	delay_ns = strtoull(argv[5], NULL, 10) * 1000;
	a = tap_open(argv[1], argv[2]);
	b = tap_open(argv[3], argv[4]);
	queues[0].from = queues[1].to = a;
	queues[1].from = queues[0].to = b;
	polled[0] = (struct pollfd){.fd = a, .events = POLLIN};
	polled[1] = (struct pollfd){.fd = b, .events = POLLIN};
	polled[2] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
	puts("ready");
	fflush(stdout);

	for (;;) {
		uint64_t wait = wait_ns(queues);
		struct timespec timeout = {.tv_sec = (time_t)(wait / NS_PER_S), .tv_nsec = (long)(wait % NS_PER_S)};
		char ignored[64];

		if (ppoll(polled, 3, wait == UINT64_MAX ? NULL : &timeout, NULL) < 0 && errno != EINTR)
			fail("ppoll");
		if (polled[2].revents && read(STDIN_FILENO, ignored, sizeof(ignored)) <= 0)
			return 0;
		queue_read(&queues[0], delay_ns);
		queue_read(&queues[1], delay_ns);
		queue_write(&queues[0]);
		queue_write(&queues[1]);
	}
}
