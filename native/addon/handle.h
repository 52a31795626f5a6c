// Handles: native things owned by a JavaScript value.
//
// A handle is an object that wraps the native thing and has a type tag, so a map where a link is wanted (or an object
// of another addon) is a TypeError and never a wrong cast. Its finalizer runs when the garbage collector takes it or
// when its environment, the main thread's or a worker's, ends; `close` frees the contents sooner and leaves an empty
// handle behind. Not an External: Node loses 40 bytes for each of those that still lives when a worker ends (seen in
// Node 26.9 by leak.sh).
#ifndef CULVERT_ADDON_HANDLE_H
#define CULVERT_ADDON_HANDLE_H

#include "error.h"

#include <memory>

namespace addon
{

// T has: `static constexpr napi_type_tag tag`, `static constexpr const char *noun` ("a map"), closed(), close().
template <typename T> Napi::Value handle_make(Napi::Env env, std::unique_ptr<T> owned)
{
	Napi::Object handle = Napi::Object::New(env);
	napi_status status = napi_wrap(
		env, handle, owned.get(), [](napi_env, void *gone, void *) { delete static_cast<T *>(gone); }, nullptr,
		nullptr);
	NAPI_THROW_IF_FAILED(env, status, Napi::Value());
	owned.release();
	handle.TypeTag(&T::tag);
	return handle;
}

template <typename T> bool handle_is(const Napi::Value &value)
{
	return value.IsObject() && value.As<Napi::Object>().CheckTypeTag(&T::tag);
}

// Also good for a closed handle.
template <typename T> T &handle_any(const Napi::Value &value, const char *name)
{
	if (!handle_is<T>(value))
		throw_type(value.Env(), name, T::noun);
	void *data = nullptr;
	napi_status status = napi_unwrap(value.Env(), value, &data);
	NAPI_THROW_IF_FAILED(value.Env(), status, *static_cast<T *>(data));
	return *static_cast<T *>(data);
}

template <typename T> T &handle_open(const Napi::Value &value, const char *name)
{
	T &handle = handle_any<T>(value, name);
	if (handle.closed())
		throw_errno(value.Env(), EBADF, "handle", name);
	return handle;
}

} // namespace addon

#endif
