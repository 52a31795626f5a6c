// A reader of a ring buffer map.
#ifndef CULVERT_ADDON_RING_H
#define CULVERT_ADDON_RING_H

#include "handle.h"

#include <bpf/libbpf.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace addon
{

struct RingFree {
	void operator()(ring_buffer *ring) const
	{
		ring_buffer__free(ring);
	}
};

struct Ring {
	static constexpr napi_type_tag tag = {0xd41f6a2e09b3c857, 0x7a9e53c1f0264db8};
	static constexpr const char *noun = "a ring";

	std::unique_ptr<ring_buffer, RingFree> raw;
	// Of the read under way: the records' bytes one after the other, and how many more are wanted.
	std::vector<uint8_t> bytes;
	size_t wanted = 0;

	bool closed() const
	{
		return raw == nullptr;
	}
	void close()
	{
		raw.reset();
		std::vector<uint8_t>().swap(bytes);
	}
};

} // namespace addon

#endif
