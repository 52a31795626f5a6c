// BPF objects: open, set read-only globals, reuse maps, load, look inside.
#include "object.h"

#include "argument.h"
#include "calls.h"
#include "map.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <fcntl.h>
#include <linux/bpf.h>

#include <cstdarg>
#include <cstdio>
#include <mutex>
#include <string_view>
#include <vector>

namespace addon
{

namespace
{

// What libbpf says during one call on this thread: the verifier's log and its own reasons. libbpf has one print
// function per process but calls it on the thread that works, so each capture is a thread's own.
class Capture
{
      public:
	Capture() : outer_(current)
	{
		current = this;
	}
	~Capture()
	{
		current = outer_;
	}
	Capture(const Capture &) = delete;
	Capture &operator=(const Capture &) = delete;

	// The end of what was said: the verifier puts its reason last.
	std::string last_lines() const
	{
		std::string_view text(text_);
		while (!text.empty() && text.back() == '\n')
			text.remove_suffix(1);
		size_t start = text.size();
		for (size_t line = 0; line < lines_told && start != 0; line++) {
			start = text.rfind('\n', start - 1);
			if (start == std::string_view::npos)
				start = 0;
		}
		if (start < text.size() && text[start] == '\n')
			start++;
		return std::string(text.substr(start));
	}

	static int print(enum libbpf_print_level level, const char *format, va_list arguments) noexcept
	{
		if (current == nullptr || level == LIBBPF_DEBUG)
			return 0;
		try {
			current->append(format, arguments);
		} catch (const std::bad_alloc &) {
			// Less is told; the error itself still is.
		}
		return 0;
	}

      private:
	static constexpr size_t lines_told = 24;
	static constexpr size_t bytes_kept = 64 * 1024;

	void append(const char *format, va_list arguments)
	{
		va_list again;
		va_copy(again, arguments);
		int length = std::vsnprintf(nullptr, 0, format, again);
		va_end(again);
		if (length <= 0)
			return;
		size_t before = text_.size();
		text_.resize(before + static_cast<size_t>(length) + 1);
		std::vsnprintf(&text_[before], static_cast<size_t>(length) + 1, format, arguments);
		text_.pop_back();
		if (text_.size() > bytes_kept)
			text_.erase(0, text_.size() - bytes_kept);
	}

	std::string text_;
	Capture *outer_;
	static thread_local Capture *current;
};

thread_local Capture *Capture::current = nullptr;

void must_be_opened(Napi::Env env, const Object &object, const char *call)
{
	if (object.state != ObjectState::opened)
		throw_errno(env, EBUSY, call, object.path, "The object was loaded already.");
}

void must_be_loaded(Napi::Env env, const Object &object, const char *call)
{
	if (object.state != ObjectState::loaded)
		throw_errno(env, EINVAL, call, object.path, "The object is not loaded.");
}

// The image of .rodata, whose libbpf map is called "<object's name, cut>.rodata".
bpf_map *rodata_map(const bpf_object *object)
{
	bpf_map *map = nullptr;
	bpf_object__for_each_map(map, object)
	{
		if (bpf_map__is_internal(map) && std::string_view(bpf_map__name(map)).ends_with(".rodata"))
			return map;
	}
	return nullptr;
}

const btf_var_secinfo *rodata_variable(const bpf_object *object, const std::string &name)
{
	const btf *types = bpf_object__btf(object);
	if (types == nullptr)
		return nullptr;
	int section = btf__find_by_name_kind(types, ".rodata", BTF_KIND_DATASEC);
	if (section < 0)
		return nullptr;
	const btf_type *section_type = btf__type_by_id(types, static_cast<uint32_t>(section));
	const btf_var_secinfo *variables = btf_var_secinfos(section_type);
	for (uint32_t i = 0; i < btf_vlen(section_type); i++) {
		const btf_type *variable = btf__type_by_id(types, variables[i].type);
		if (name == btf__name_by_offset(types, variable->name_off))
			return &variables[i];
	}
	return nullptr;
}

} // namespace

void libbpf_capture()
{
	static std::once_flag once;
	std::call_once(once, [] { libbpf_set_print(Capture::print); });
}

int object_program(Napi::Env env, const Object &object, const std::string &name)
{
	must_be_loaded(env, object, "bpf_object__find_program_by_name");
	const bpf_program *program = bpf_object__find_program_by_name(object.raw.get(), name.c_str());
	int fd = program == nullptr ? -ENOENT : bpf_program__fd(program);
	if (fd < 0)
		throw_errno(env, ENOENT, "bpf_object__find_program_by_name", name);
	return fd;
}

Napi::Value object_open(const Napi::CallbackInfo &info)
{
	auto object = std::make_unique<Object>();
	object->path = argument_string(info[0], "path");
	Capture capture;
	object->raw.reset(bpf_object__open_file(object->path.c_str(), nullptr));
	if (object->raw == nullptr)
		throw_errno(info.Env(), errno, "bpf_object__open_file", object->path, capture.last_lines());
	return handle_make(info.Env(), std::move(object));
}

Napi::Value object_set_global(const Napi::CallbackInfo &info)
{
	static constexpr const char *call = "bpf_map__initial_value";
	Object &object = handle_open<Object>(info[0], "object");
	std::string name = argument_string(info[1], "name");
	Bytes bytes = argument_bytes(info[2], "bytes");
	// After loading the kernel has its copy, and this memory is read-only.
	must_be_opened(info.Env(), object, call);
	const btf_var_secinfo *variable = rodata_variable(object.raw.get(), name);
	bpf_map *map = rodata_map(object.raw.get());
	if (variable == nullptr || map == nullptr)
		throw_errno(info.Env(), ENOENT, call, name);
	size_t image_bytes = 0;
	const auto *image = static_cast<const uint8_t *>(bpf_map__initial_value(map, &image_bytes));
	if (image == nullptr || variable->offset > image_bytes || variable->size > image_bytes - variable->offset)
		throw_errno(info.Env(), ENOENT, call, name);
	if (bytes.size() != variable->size)
		throw_type(
			info.Env(), "bytes", ("a Uint8Array of " + std::to_string(variable->size) + " bytes").c_str());
	std::vector<uint8_t> changed(image, image + image_bytes);
	std::memcpy(&changed[variable->offset], bytes.data(), bytes.size());
	int error = bpf_map__set_initial_value(map, changed.data(), changed.size());
	if (error < 0)
		throw_errno(info.Env(), error, "bpf_map__set_initial_value", name);
	return info.Env().Undefined();
}

Napi::Value object_reuse_map(const Napi::CallbackInfo &info)
{
	static constexpr const char *call = "bpf_map__reuse_fd";
	Object &object = handle_open<Object>(info[0], "object");
	std::string name = argument_string(info[1], "name");
	Map &map = handle_open<Map>(info[2], "map");
	must_be_opened(info.Env(), object, call);
	bpf_map *own = bpf_object__find_map_by_name(object.raw.get(), name.c_str());
	if (own == nullptr)
		throw_errno(info.Env(), ENOENT, call, name);
	// libbpf takes any map and overwrites its own idea of the shape, which the programs were compiled for.
	if (bpf_map__type(own) != static_cast<bpf_map_type>(map.type) || bpf_map__key_size(own) != map.key_bytes ||
		bpf_map__value_size(own) != map.declared_value_bytes || bpf_map__max_entries(own) != map.max_entries ||
		bpf_map__map_flags(own) != map.flags)
		throw_errno(info.Env(), EINVAL, call, name, "The map has another shape than the object wants.");
	Capture capture;
	int error = bpf_map__reuse_fd(own, map.fd.get());
	if (error < 0)
		throw_errno(info.Env(), error, call, name, capture.last_lines());
	return info.Env().Undefined();
}

Napi::Value object_load(const Napi::CallbackInfo &info)
{
	static constexpr const char *call = "bpf_object__load";
	Object &object = handle_open<Object>(info[0], "object");
	must_be_opened(info.Env(), object, call);
	Capture capture;
	int error = bpf_object__load(object.raw.get());
	object.state = error < 0 ? ObjectState::failed : ObjectState::loaded;
	if (error < 0)
		throw_errno(info.Env(), error, call, object.path, capture.last_lines());
	return info.Env().Undefined();
}

Napi::Value object_map(const Napi::CallbackInfo &info)
{
	Object &object = handle_open<Object>(info[0], "object");
	std::string name = argument_string(info[1], "name");
	must_be_loaded(info.Env(), object, "bpf_object__find_map_by_name");
	const bpf_map *map = bpf_object__find_map_by_name(object.raw.get(), name.c_str());
	int fd = map == nullptr ? -ENOENT : bpf_map__fd(map);
	if (fd < 0)
		throw_errno(info.Env(), ENOENT, "bpf_object__find_map_by_name", name);
	Fd own(fcntl(fd, F_DUPFD_CLOEXEC, 0));
	if (!own.valid())
		throw_errno(info.Env(), errno, "fcntl", name);
	return map_make(info.Env(), std::move(own), name);
}

Napi::Value object_programs(const Napi::CallbackInfo &info)
{
	Object &object = handle_open<Object>(info[0], "object");
	must_be_loaded(info.Env(), object, "bpf_obj_get_info_by_fd");
	Napi::Array programs = Napi::Array::New(info.Env());
	bpf_program *program = nullptr;
	bpf_object__for_each_program(program, object.raw.get())
	{
		int fd = bpf_program__fd(program);
		// A program that the object does not load by itself.
		if (fd < 0)
			continue;
		bpf_prog_info kernel = {};
		uint32_t length = sizeof(kernel);
		int error = bpf_obj_get_info_by_fd(fd, &kernel, &length);
		if (error < 0)
			throw_errno(info.Env(), error, "bpf_obj_get_info_by_fd", bpf_program__name(program));
		Napi::Object told = Napi::Object::New(info.Env());
		told.Set("name", bpf_program__name(program));
		told.Set("section", bpf_program__section_name(program));
		told.Set("id", kernel.id);
		told.Set("tag", hexadecimal(kernel.tag, sizeof(kernel.tag)));
		told.Set("instructions", kernel.verified_insns);
		programs.Set(programs.Length(), told);
	}
	return programs;
}

} // namespace addon
