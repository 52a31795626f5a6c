/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * address.h: one form for every address. IPv4, IPv6 and v4-mapped sockets meet here and are one path afterwards.
 */
#ifndef CULVERT_ADDRESS_H
#define CULVERT_ADDRESS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "layout.h"

#define FAMILY_V4 2
#define FAMILY_V6 10
#define MAPPED_WORD bpf_htonl(0x0000ffff)

/*
 * One word of a program's context, read where it stands. Without the barrier clang 14 merges the last reads of two
 * branches into one through a computed pointer, which the verifier refuses ("dereference of modified ctx ptr").
 */
#define CTX_WORD(field)                                                                                                \
	({                                                                                                             \
		__u32 ctx_word = *(volatile __u32 *)&(field);                                                          \
		asm volatile("" : "+r"(ctx_word));                                                                     \
		ctx_word;                                                                                              \
	})

static __always_inline void address_set_words(struct address *address, __u32 w0, __u32 w1, __u32 w2, __u32 w3)
{
	__u32 words[4] = {w0, w1, w2, w3};

	__builtin_memcpy(address->bytes, words, sizeof(words));
}

static __always_inline void address_set_v4(struct address *address, __u32 ip4)
{
	address_set_words(address, 0, 0, MAPPED_WORD, ip4);
}

static __always_inline __u32 address_word(const struct address *address, int index)
{
	__u32 word;

	__builtin_memcpy(&word, address->bytes + 4 * index, sizeof(word));
	return word;
}

static __always_inline int address_is_v4(const struct address *address)
{
	return !address_word(address, 0) && !address_word(address, 1) && address_word(address, 2) == MAPPED_WORD;
}

static __always_inline int address_equals(const struct address *a, const struct address *b)
{
	return address_word(a, 0) == address_word(b, 0) && address_word(a, 1) == address_word(b, 1) &&
	       address_word(a, 2) == address_word(b, 2) && address_word(a, 3) == address_word(b, 3);
}

/* 127.0.0.0/8, ::1 */
static __always_inline int address_is_loopback(const struct address *address)
{
	if (address_is_v4(address))
		return (bpf_ntohl(address_word(address, 3)) >> 24) == 127;
	return !address_word(address, 0) && !address_word(address, 1) && !address_word(address, 2) &&
	       address_word(address, 3) == bpf_htonl(1);
}

/* 0.0.0.0, ::. The kernel connects both to the loopback. */
static __always_inline int address_is_unspecified(const struct address *address)
{
	if (address_is_v4(address))
		return !address_word(address, 3);
	return !address_word(address, 0) && !address_word(address, 1) && !address_word(address, 2) &&
	       !address_word(address, 3);
}

/* fe80::/10 */
static __always_inline int address_is_link_local_v6(const struct address *address)
{
	return (address_word(address, 0) & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* Spreads destinations over the addresses and ports that lead to the agent. Not a secret: a pod can only collide with
 * itself. */
static __always_inline __u32 endpoint_hash(const struct endpoint *endpoint)
{
	__u32 hash = endpoint->port * 0x9e3779b1u;

	for (int i = 0; i < 4; i++) {
		hash ^= address_word(&endpoint->address, i);
		hash *= 0x85ebca6bu;
		hash ^= hash >> 15;
	}
	hash *= 0xc2b2ae35u;
	return hash ^ (hash >> 16);
}

#endif
