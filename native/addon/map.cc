// Maps: look up, update, delete, list.
#include "map.h"

#include "argument.h"
#include "calls.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <algorithm>
#include <array>
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
		if (met_.insert(last()).second)
			return true;
		bytes_.resize(bytes_.size() - key_bytes_);
		return false;
	}
	size_t last() const
	{
		return bytes_.size() / key_bytes_ - 1;
	}
	const std::vector<uint8_t> &bytes() const
	{
		return bytes_;
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

Napi::Value map_keys(const Napi::CallbackInfo &info)
{
	const Map &map = handle_open<Map>(info[0], "map");
	if (map.key_bytes == 0)
		throw_errno(info.Env(), EINVAL, "bpf_map_get_next_key", map.name, "The map has no keys.");
	Keys keys(map.key_bytes);
	std::vector<uint8_t> here(map.key_bytes);
	std::vector<uint8_t> next(map.key_bytes);
	// Deletions by others can turn the walk back again and again; somewhere it must end.
	uint64_t steps_left = 2 * static_cast<uint64_t>(map.max_entries) + 1024;
	uint32_t kept = 0;
	for (const void *from = nullptr; kept < map.max_entries && steps_left > 0; from = here.data(), steps_left--) {
		int error = bpf_map_get_next_key(map.fd.get(), from, next.data());
		if (error == -ENOENT)
			break;
		if (error < 0)
			throw_errno(info.Env(), error, "bpf_map_get_next_key", map.name);
		if (keys.add(next.data()))
			kept++;
		here.swap(next);
	}
	return bytes_copy(info.Env(), keys.bytes().data(), keys.bytes().size());
}

} // namespace addon
