// An open BPF object. Life cycle: opened -> loaded (or failed) -> closed; libbpf allows one attempt to load.
#ifndef CULVERT_ADDON_OBJECT_H
#define CULVERT_ADDON_OBJECT_H

#include "handle.h"

#include <bpf/libbpf.h>

#include <memory>
#include <string>

namespace addon
{

struct ObjectClose {
	void operator()(bpf_object *object) const
	{
		bpf_object__close(object);
	}
};

enum class ObjectState { opened, loaded, failed };

struct Object {
	static constexpr napi_type_tag tag = {0x6f3b1d92c4e85a07, 0x91d0a7f35c2e4b68};
	static constexpr const char *noun = "a BPF object";

	std::string path;
	std::unique_ptr<bpf_object, ObjectClose> raw;
	ObjectState state = ObjectState::opened;

	bool closed() const
	{
		return raw == nullptr;
	}
	void close()
	{
		raw.reset();
	}
};

// The descriptor of a loaded program; the object keeps owning it.
int object_program(Napi::Env env, const Object &object, const std::string &name);

// Takes over what libbpf would print. Once per process; each thread hears only of its own calls.
void libbpf_capture();

} // namespace addon

#endif
