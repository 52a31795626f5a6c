/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * storage.h: what is kept per socket, and what only the socket hooks keep.
 */
#ifndef CULVERT_STORAGE_H
#define CULVERT_STORAGE_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "layout.h"

/* Never cloned to accepted sockets: those are told by hand-over alone. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct peer);
} peers SEC(".maps") __weak;

/*
 * The agent's tag (enum owned_role), set by descriptor from user space: no process without the map can forge it.
 * Cloned, so that what the agent's listeners accept has it before anybody else sees it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, __u32);
} owned SEC(".maps") __weak;

/* Of sockets on the kernel path. Never cloned. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct plan);
} plans SEC(".maps") __weak;

/* Of sockets that speak UDP (enum datagram_flag). Never cloned. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} datagrams SEC(".maps") __weak;

/* Written by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LIMIT_VERDICTS);
	__type(key, struct verdict_key);
	__type(value, struct verdict_value);
} verdicts SEC(".maps") __weak;

/* Written by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LIMIT_SERVICES);
	__type(key, struct endpoint);
	__type(value, struct service);
} services SEC(".maps") __weak;

/* Written by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LIMIT_PODS *LIMIT_POD_ADDRESSES);
	__type(key, struct address);
	__type(value, __u64);
} addresses SEC(".maps") __weak;

/* Of the agent alone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LIMIT_EARLIER_SOCKETS);
	__type(key, struct earlier_socket);
	__type(value, __u8);
} earlier_sockets SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, LIMIT_ALARMS_BYTES);
} alarms SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, LIMIT_FLOW_RECORDS_BYTES);
} flow_records SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LIMIT_CGROUPS);
	__type(key, __u64);
	__type(value, __u64);
} cgroups SEC(".maps") __weak;

#endif
