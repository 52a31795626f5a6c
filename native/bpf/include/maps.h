/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * maps.h: the maps that every program may need. Weak, so that the linker makes one of each out of all hook files.
 * Those of sockets alone are in storage.h, because sk_lookup cannot use them.
 */
#ifndef CULVERT_MAPS_H
#define CULVERT_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "layout.h"

/* Written by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LIMIT_PODS);
	__type(key, __u64);
	__type(value, struct pod);
} pods SEC(".maps") __weak;

/* Written by sockops, swept by the agent. Bounded per pod by pod_usage. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LIMIT_HANDOVERS);
	__type(key, struct connection);
	__type(value, struct handover);
} handovers SEC(".maps") __weak;

/* Written by the agent; the kernel removes a listener when it is closed. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, LIMIT_LISTENERS);
	__type(key, struct listener);
	__type(value, __u64);
} listeners SEC(".maps") __weak;

/* Written by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LIMIT_EXCLUDED_PORTS);
	__type(key, struct excluded_port);
	__type(value, __u8);
} excluded_ports SEC(".maps") __weak;

/* Written by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LIMIT_EXCLUDED_CIDRS);
	__type(key, struct excluded_cidr);
	__type(value, __u8);
} excluded_cidrs SEC(".maps") __weak;

/* Written by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LIMIT_PODS + 1); /* one for destinations outside */
	__type(key, __u64);
	__type(value, __u64);
} epochs SEC(".maps") __weak;

/* Written by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} heartbeat SEC(".maps") __weak;

/* Written by sockops, sk_lookup marks arrivals, swept by the agent. Bounded per pod by pod_usage. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LIMIT_FLOWS);
	__type(key, struct connection);
	__type(value, struct flow);
} flows SEC(".maps") __weak;

/* Written by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LIMIT_OPEN_PORTS);
	__type(key, struct open_port);
	__type(value, __u8);
} open_ports SEC(".maps") __weak;

/* Written by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kubelet);
} kubelet SEC(".maps") __weak;

/* Hand-overs and flows of each pod, as the kernel counts them; the entry is made by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LIMIT_PODS);
	__type(key, __u64);
	__type(value, struct pod_usage);
} pod_usage SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LIMIT_COUNTERS);
	__type(key, struct counter);
	__type(value, __u64);
} counters SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, LIMIT_EVENTS_BYTES);
} events SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RING_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} lost_records SEC(".maps") __weak;

#endif
