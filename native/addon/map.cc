// Maps: look up, update, delete, list.
#include "map.h"

#include "argument.h"
#include "calls.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <new>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace addon
{

namespace
{

bool is_per_cpu(uint32_t type)
{
	return type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_ARRAY ||
	       type == BPF_MAP_TYPE_LRU_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE;
}

Bytes argument_key(const Napi::Value &value, const Map &map)
{
	Bytes key = argument_bytes(value, "key");
	if (key.size() != map.key_bytes)
		throw_type(value.Env(), "key", ("a Uint8Array of " + std::to_string(map.key_bytes) + " bytes").c_str());
	return key;
}

// Room for one value: on the stack unless it is a big one.
class Room
{
      public:
	explicit Room(size_t length) : large_(length > small_.size() ? length : 0)
	{
	}

	void *data()
	{
		return large_.empty() ? small_.data() : large_.data();
	}

      private:
	alignas(8) std::array<uint8_t, 512> small_;
	std::vector<uint8_t> large_;
};

// All keys met so far, one after the other, each once. A walk by get_next_key starts again from the map's beginning
// when the key it stands on is deleted under it, so keys may be met twice.
class Keys
{
      public:
	explicit Keys(size_t key_bytes) : key_bytes_(key_bytes), met_(16, Hash{this}, Same{this})
	{
	}

	// False if the key was there already.
	bool add(const uint8_t *key)
	{
		bytes_.insert(bytes_.end(), key, key + key_bytes_);
		if (met_.insert(bytes_.size() / key_bytes_ - 1).second)
			return true;
		bytes_.resize(bytes_.size() - key_bytes_);
		return false;
	}

      private:
	struct Hash {
		const Keys *keys;
		size_t operator()(size_t index) const
		{
			return std::hash<std::string_view>()(keys->at(index));
		}
	};
	struct Same {
		const Keys *keys;
		bool operator()(size_t one, size_t other) const
		{
			return keys->at(one) == keys->at(other);
		}
	};
	std::string_view at(size_t index) const
	{
		return {reinterpret_cast<const char *>(&bytes_[index * key_bytes_]), key_bytes_};
	}

	size_t key_bytes_;
	std::vector<uint8_t> bytes_;
	std::unordered_set<size_t, Hash, Same> met_;
};

// Bytes that grow. Not a vector: that would fill with zeros what is read over at once, and copy where the kernel can
// move pages.
class Growing
{
      public:
	void resize(size_t length)
	{
		if (length > room_) {
			size_t wanted = std::max(length, 2 * room_);
			void *larger = std::realloc(bytes_.get(), wanted);
			if (larger == nullptr)
				throw std::bad_alloc();
			(void)bytes_.release();
			bytes_.reset(static_cast<uint8_t *>(larger));
			room_ = wanted;
		}
		length_ = length;
	}
	uint8_t *at(size_t offset)
	{
		return bytes_.get() + offset;
	}
	size_t size() const
	{
		return length_;
	}

      private:
	struct Free {
		void operator()(uint8_t *bytes) const
		{
			std::free(bytes);
		}
	};
	std::unique_ptr<uint8_t, Free> bytes_;
	size_t length_ = 0;
	size_t room_ = 0;
};

// A map's entries: keys one after the other, and values in the same order.
struct Entries {
	Growing keys;
	Growing values;

	void resize(const Map &map, size_t count)
	{
		keys.resize(count * map.key_bytes);
		values.resize(count * map.value_bytes);
	}
};

bool is_hash(uint32_t type)
{
	return type == BPF_MAP_TYPE_HASH || type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_LRU_HASH ||
	       type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

constexpr uint32_t batch_at_first = 4096;

// Many entries a call, bucket by bucket, so none twice. False where the kernel has no such call for the map: then
// nothing has been read. (Other types than hashes have one that walks from key to key, and is no faster than that.)
bool batch_read(Napi::Env env, const Map &map, Entries &entries)
{
	if (!is_hash(map.type))
		return false;
	uint32_t room = std::min(map.max_entries, batch_at_first);
	uint32_t from = 0;
	uint32_t next = 0;
	bool begun = false;
	size_t count = 0;
	bpf_map_batch_opts options = {};
	options.sz = sizeof(options);
	for (bool more = true; more && count < map.max_entries;) {
		entries.resize(map, count + room);
		uint32_t got = room;
		int error = bpf_map_lookup_batch(map.fd.get(), begun ? &from : nullptr, &next,
			entries.keys.at(count * map.key_bytes), entries.values.at(count * map.value_bytes), &got,
			&options);
		if (error == -ENOSPC && room < map.max_entries) {
			// One bucket holds more than there was room for.
			room = std::min(map.max_entries, room * 2);
			continue;
		}
		if (!begun && (error == -EINVAL || error == -kernel_enotsupp || error == -EOPNOTSUPP))
			return false;
		if (error < 0 && error != -ENOENT)
			throw_errno(env, error, "bpf_map_lookup_batch", map.name);
		count += got;
		more = error == 0;
		begun = true;
		from = next;
	}
	entries.resize(map, std::min<size_t>(count, map.max_entries));
	return true;
}

// From key to key.
void walk(Napi::Env env, const Map &map, Entries &entries)
{
	Keys keys(map.key_bytes);
	std::vector<uint8_t> here(map.key_bytes);
	std::vector<uint8_t> next(map.key_bytes);
	// Deletions by others can turn the walk back again and again; somewhere it must end.
	uint64_t steps_left = 2 * static_cast<uint64_t>(map.max_entries) + 1024;
	uint32_t kept = 0;
	entries.resize(map, 0);
	for (const void *from = nullptr; kept < map.max_entries && steps_left > 0; from = here.data(), steps_left--) {
		int error = bpf_map_get_next_key(map.fd.get(), from, next.data());
		if (error == -ENOENT)
			break;
		if (error < 0)
			throw_errno(env, error, "bpf_map_get_next_key", map.name);
		here.swap(next);
		if (!keys.add(here.data()))
			continue;
		entries.resize(map, kept + size_t(1));
		std::copy(here.begin(), here.end(), entries.keys.at(kept * map.key_bytes));
		error = bpf_map_lookup_elem(map.fd.get(), here.data(), entries.values.at(kept * map.value_bytes));
		// Deleted meanwhile.
		if (error == -ENOENT)
			continue;
		if (error < 0)
			throw_errno(env, error, "bpf_map_lookup_elem", map.name);
		kept++;
	}
	entries.resize(map, kept);
}

} // namespace

Napi::Value map_make(Napi::Env env, Fd fd, const std::string &argument)
{
	bpf_map_info kernel = {};
	uint32_t length = sizeof(kernel);
	int error = bpf_obj_get_info_by_fd(fd.get(), &kernel, &length);
	if (error < 0)
		throw_errno(env, error, "bpf_obj_get_info_by_fd", argument);
	auto map = std::make_unique<Map>();
	map->fd = std::move(fd);
	map->id = kernel.id;
	map->type = kernel.type;
	map->key_bytes = kernel.key_size;
	map->max_entries = kernel.max_entries;
	map->flags = kernel.map_flags;
	map->declared_value_bytes = kernel.value_size;
	map->value_bytes = kernel.value_size;
	if (is_per_cpu(kernel.type)) {
		int cpus = libbpf_num_possible_cpus();
		if (cpus < 0)
			throw_errno(env, cpus, "libbpf_num_possible_cpus", argument);
		map->value_bytes = (static_cast<size_t>(kernel.value_size) + 7) / 8 * 8 * static_cast<size_t>(cpus);
	}
	std::copy_n(kernel.name, sizeof(map->name), map->name);
	map->name[sizeof(map->name) - 1] = '\0';
	return handle_make(env, std::move(map));
}

Napi::Value map_lookup(const Napi::CallbackInfo &info)
{
	const Map &map = handle_open<Map>(info[0], "map");
	Bytes key = argument_key(info[1], map);
	Room room(map.value_bytes);
	int error = bpf_map_lookup_elem(map.fd.get(), key.data(), room.data());
	if (error == -ENOENT)
		return info.Env().Undefined();
	if (error < 0)
		throw_errno(info.Env(), error, "bpf_map_lookup_elem", map.name);
	return bytes_copy(info.Env(), room.data(), map.value_bytes);
}

Napi::Value map_update(const Napi::CallbackInfo &info)
{
	const Map &map = handle_open<Map>(info[0], "map");
	Bytes key = argument_key(info[1], map);
	Bytes value = argument_bytes(info[2], "value");
	if (value.size() != map.value_bytes)
		throw_type(
			info.Env(), "value", ("a Uint8Array of " + std::to_string(map.value_bytes) + " bytes").c_str());
	uint64_t flags = BPF_ANY;
	if (!info[3].IsUndefined())
		flags = static_cast<uint64_t>(argument_integer(info[3], "flags", BPF_ANY, BPF_EXIST));
	int error = bpf_map_update_elem(map.fd.get(), key.data(), value.data(), flags);
	if (error < 0)
		throw_errno(info.Env(), error, "bpf_map_update_elem", map.name);
	return info.Env().Undefined();
}

Napi::Value map_delete(const Napi::CallbackInfo &info)
{
	const Map &map = handle_open<Map>(info[0], "map");
	Bytes key = argument_key(info[1], map);
	int error = bpf_map_delete_elem(map.fd.get(), key.data());
	if (error < 0 && error != -ENOENT)
		throw_errno(info.Env(), error, "bpf_map_delete_elem", map.name);
	return Napi::Boolean::New(info.Env(), error == 0);
}

Napi::Value map_entries(const Napi::CallbackInfo &info)
{
	const Map &map = handle_open<Map>(info[0], "map");
	if (map.key_bytes == 0)
		throw_errno(info.Env(), EINVAL, "bpf_map_get_next_key", map.name, "The map has no keys.");
	Entries entries;
	if (!batch_read(info.Env(), map, entries))
		walk(info.Env(), map, entries);
	Napi::Object told = Napi::Object::New(info.Env());
	told.Set("keys", bytes_copy(info.Env(), entries.keys.at(0), entries.keys.size()));
	told.Set("values", bytes_copy(info.Env(), entries.values.at(0), entries.values.size()));
	return told;
}

} // namespace addon
