// SPDX-License-Identifier: Apache-2.0
/*
 * uring: a client that does all through io_uring: the socket, its connect, one line sent and one read.
 *
 *   uring ADDRESS PORT
 *
 * Prints {"peer","local","reply"} or {"error","at"}, as connect.py does; ends with 0 or 1. In C, since neither Node nor
 * Python reaches io_uring; by bare system calls, since one request at a time needs no library.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENTRIES 4
#define ENDPOINT_BYTES (INET6_ADDRSTRLEN + 16)

static struct io_uring_params params;
static int ring_fd;
static char *submissions, *completions;
static struct io_uring_sqe *entries;

static void fail(const char *at, int error)
{
	const char *name = strerrorname_np(error);

	printf("{\"error\":\"%s\",\"at\":\"%s\"}\n", error == 0 ? "EOF" : name ? name : "unknown", at);
	exit(1);
}

static void *ring_map(size_t bytes, off_t offset)
{
	void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring_fd, offset);

	if (mapped == MAP_FAILED)
		fail("ring", errno);
	return mapped;
}

static void ring_open(void)
{
	ring_fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &params);
	if (ring_fd < 0)
		fail("ring", errno);
	submissions = ring_map(params.sq_off.array + params.sq_entries * sizeof(uint32_t), IORING_OFF_SQ_RING);
	completions =
		ring_map(params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
	entries = ring_map(params.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
}

/* Submits one request and waits for its result. */
static int ring_do(struct io_uring_sqe request, const char *at)
{
	uint32_t *tail = (uint32_t *)(submissions + params.sq_off.tail);
	uint32_t mask = *(uint32_t *)(submissions + params.sq_off.ring_mask);
	uint32_t *array = (uint32_t *)(submissions + params.sq_off.array);
	uint32_t *head = (uint32_t *)(completions + params.cq_off.head);
	uint32_t done_mask = *(uint32_t *)(completions + params.cq_off.ring_mask);
	struct io_uring_cqe *cqes = (struct io_uring_cqe *)(completions + params.cq_off.cqes);
	uint32_t slot = *tail & mask;
	int result;

	entries[slot] = request;
	array[slot] = slot;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring_fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		fail(at, errno);
	result = cqes[*head & done_mask].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	if (result < 0)
		fail(at, -result);
	return result;
}

static void endpoint_write(const struct sockaddr_storage *address, char *text)
{
	char host[INET6_ADDRSTRLEN] = "";

	if (address->ss_family == AF_INET6) {
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;

		inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
		snprintf(text, ENDPOINT_BYTES, "[%s]:%u", host, ntohs(v6->sin6_port));
	} else {
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;

		inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
		snprintf(text, ENDPOINT_BYTES, "%s:%u", host, ntohs(v4->sin_port));
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_storage to = {0}, seen;
	struct sockaddr_in *v4 = (struct sockaddr_in *)&to;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&to;
	socklen_t bytes = sizeof(seen);
	char peer[ENDPOINT_BYTES] = "", local[ENDPOINT_BYTES] = "", reply[4096] = "";
	int fd, got;

	if (argc == 3 && inet_pton(AF_INET, argv[1], &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)atoi(argv[2]));
	} else if (argc == 3 && inet_pton(AF_INET6, argv[1], &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)atoi(argv[2]));
	} else {
		fprintf(stderr, "usage: uring ADDRESS PORT\n");
		return 2;
	}
	ring_open();
	fd = ring_do(
		(struct io_uring_sqe){.opcode = IORING_OP_SOCKET, .fd = to.ss_family, .off = SOCK_STREAM}, "socket");
	ring_do((struct io_uring_sqe){.opcode = IORING_OP_CONNECT, .fd = fd, .addr = (uintptr_t)&to, .off = sizeof(to)},
		"connect");
	if (getpeername(fd, (struct sockaddr *)&seen, &bytes) == 0)
		endpoint_write(&seen, peer);
	bytes = sizeof(seen);
	if (getsockname(fd, (struct sockaddr *)&seen, &bytes) == 0)
		endpoint_write(&seen, local);
	ring_do((struct io_uring_sqe){.opcode = IORING_OP_SEND, .fd = fd, .addr = (uintptr_t) "hello\n", .len = 6},
		"send");
	got = ring_do(
		(struct io_uring_sqe){
			.opcode = IORING_OP_RECV, .fd = fd, .addr = (uintptr_t)reply, .len = sizeof(reply) - 1},
		"read");
	if (got == 0)
		fail("read", 0);
	reply[strcspn(reply, "\n")] = 0;
	printf("{\"peer\":\"%s\",\"local\":\"%s\",\"reply\":\"%s\"}\n", peer, local, reply);
	return 0;
}
