// SPDX-License-Identifier: Apache-2.0
/*
 * capture: writes every frame of an interface of the present network namespace to a pcap file.
 *
 *   capture FILE INTERFACE
 *
 * Prints "ready" once nothing can be missed. When its standard input closes, it writes what has arrived up to then,
 * prints {"packets":N,"dropped":N} and ends. That exact end is why it is not tcpdump, which leaves what it has not
 * read yet in its ring; the packet socket is why it is not TypeScript.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SNAP_BYTES (128u * 1024)
#define RECEIVE_BUFFER_BYTES (512 << 20)
#define LINKTYPE_ETHERNET 1
#define PACKETS_PER_TURN 4096

struct pcap_header {
	uint32_t magic;
	uint16_t major;
	uint16_t minor;
	uint32_t zone;
	uint32_t accuracy;
	uint32_t snap_bytes;
	uint32_t link_type;
};

struct pcap_record {
	uint32_t seconds;
	uint32_t microseconds;
	uint32_t captured_bytes;
	uint32_t wire_bytes;
};

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int packet_socket(const char *interface)
{
	struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	int buffer_bytes = RECEIVE_BUFFER_BYTES, one = 1;
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		fail("socket");
	address.sll_ifindex = (int)if_nametoindex(interface);
	if (!address.sll_ifindex)
		fail(interface);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer_bytes, sizeof(buffer_bytes)))
		fail("SO_RCVBUFFORCE");
	/* On the loopback every packet would be seen twice, leaving and arriving. */
	if (!strcmp(interface, "lo") && setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)))
		fail("PACKET_IGNORE_OUTGOING");
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)))
		fail("bind");
	return fd;
}

/* Lets nothing more into the socket; what is in it stays. */
static void close_intake(int fd)
{
	struct sock_filter reject = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog program = {.len = 1, .filter = &reject};

	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)))
		fail("SO_ATTACH_FILTER");
}

/* Writes at most `limit` packets that the socket holds. Returns their number. */
static uint64_t drain(int fd, FILE *file, uint64_t limit)
{
	static unsigned char buffer[SNAP_BYTES];
	uint64_t packets = 0;

	while (packets < limit) {
		ssize_t bytes = recv(fd, buffer, sizeof(buffer), MSG_TRUNC);
		struct pcap_record record;
		struct timespec now;

		if (bytes < 0 && (errno == EINTR || errno == ENETDOWN))
			continue;
		if (bytes < 0 && (errno == EAGAIN || errno == ENXIO || errno == ENODEV))
			return packets;
		if (bytes < 0)
			fail("recv");
		clock_gettime(CLOCK_REALTIME, &now);
		record.seconds = (uint32_t)now.tv_sec;
		record.microseconds = (uint32_t)(now.tv_nsec / 1000);
		record.wire_bytes = (uint32_t)bytes;
		record.captured_bytes = record.wire_bytes < SNAP_BYTES ? record.wire_bytes : SNAP_BYTES;
		if (fwrite(&record, sizeof(record), 1, file) != 1 ||
			fwrite(buffer, 1, record.captured_bytes, file) != record.captured_bytes)
			fail("write");
		packets++;
	}
	return packets;
}

int main(int argc, char **argv)
{
	struct pcap_header header = {0xa1b2c3d4, 2, 4, 0, 0, SNAP_BYTES, LINKTYPE_ETHERNET};
	struct tpacket_stats statistics;
	socklen_t statistics_bytes = sizeof(statistics);
	uint64_t packets = 0;
	FILE *file;
	int fd;

	if (argc != 3) {
		fprintf(stderr, "usage: capture FILE INTERFACE\n");
		return 2;
	}
	file = fopen(argv[1], "w");
	if (!file || fwrite(&header, sizeof(header), 1, file) != 1)
		fail(argv[1]);
	fd = packet_socket(argv[2]);
	puts("ready");
	fflush(stdout);

	for (;;) {
		struct pollfd polled[2] = {{.fd = fd, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
		char ignored[64];
		int over;

		if (poll(polled, 2, -1) < 0 && errno != EINTR)
			fail("poll");
		over = polled[1].revents && read(STDIN_FILENO, ignored, sizeof(ignored)) <= 0;
		if (over)
			break;
		packets += drain(fd, file, PACKETS_PER_TURN);
	}
	close_intake(fd);
	packets += drain(fd, file, UINT64_MAX);
	if (fclose(file))
		fail("close");
	if (getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &statistics, &statistics_bytes))
		fail("PACKET_STATISTICS");
	printf("{\"packets\":%llu,\"dropped\":%u}\n", (unsigned long long)packets, statistics.tp_drops);
	return 0;
}
