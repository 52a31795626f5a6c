// An open map: its descriptor and its shape, which never changes.
#ifndef CULVERT_ADDON_MAP_H
#define CULVERT_ADDON_MAP_H

#include "fd.h"
#include "handle.h"

#include <linux/bpf.h>

#include <cstddef>
#include <cstdint>

namespace addon
{

struct Map {
	static constexpr napi_type_tag tag = {0x2c85e0b7a1f94d63, 0xb5742f0e8dc6a319};
	static constexpr const char *noun = "a map";

	Fd fd;
	uint32_t id = 0;
	uint32_t type = 0;
	uint32_t key_bytes = 0;
	uint32_t max_entries = 0;
	uint32_t flags = 0;
	// As declared.
	uint32_t declared_value_bytes = 0;
	// What one lookup or update moves: for per-CPU maps the values of all possible CPUs.
	size_t value_bytes = 0;
	char name[BPF_OBJ_NAME_LEN] = {};

	bool closed() const
	{
		return !fd.valid();
	}
	void close()
	{
		fd.close();
	}
};

// Reads the map's shape and makes a handle of it. `argument` is what an error calls it.
Napi::Value map_make(Napi::Env env, Fd fd, const std::string &argument);

} // namespace addon

#endif
