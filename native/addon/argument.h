// Arguments, from JavaScript to plain C++, and bytes on their way back. index.js has checked them with better words;
// these checks are what keeps memory safe whoever calls.
#ifndef CULVERT_ADDON_ARGUMENT_H
#define CULVERT_ADDON_ARGUMENT_H

#include "error.h"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

namespace addon
{

// Valid until JavaScript runs again: for the length of one call.
using Bytes = std::span<const uint8_t>;

inline Bytes argument_bytes(const Napi::Value &value, const char *name)
{
	if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
		throw_type(value.Env(), name, "a Uint8Array");
	auto array = value.As<Napi::Uint8Array>();
	return Bytes(array.Data(), array.ElementLength());
}

// A path or a name: NUL would cut it short on the other side.
inline std::string argument_string(const Napi::Value &value, const char *name)
{
	if (!value.IsString())
		throw_type(value.Env(), name, "a string");
	std::string text = value.As<Napi::String>().Utf8Value();
	if (text.empty() || text.find('\0') != std::string::npos)
		throw_type(value.Env(), name, "a string that is not empty and has no NUL");
	return text;
}

inline int64_t argument_integer(const Napi::Value &value, const char *name, int64_t least, int64_t most)
{
	if (!value.IsNumber())
		throw_type(value.Env(), name, "an integer");
	double number = value.As<Napi::Number>().DoubleValue();
	if (!(number >= static_cast<double>(least) && number <= static_cast<double>(most)))
		throw_type(value.Env(), name, "an integer in range");
	return static_cast<int64_t>(number);
}

inline int argument_int(const Napi::Value &value, const char *name, int least)
{
	return static_cast<int>(argument_integer(value, name, least, std::numeric_limits<int>::max()));
}

inline int argument_fd(const Napi::Value &value, const char *name)
{
	return argument_int(value, name, 0);
}

inline Napi::Uint8Array bytes_copy(Napi::Env env, const void *data, size_t length)
{
	Napi::Uint8Array copy = Napi::Uint8Array::New(env, length);
	if (length > 0)
		std::memcpy(copy.Data(), data, length);
	return copy;
}

inline std::string hexadecimal(const uint8_t *bytes, size_t length)
{
	static constexpr char digits[] = "0123456789abcdef";
	std::string text;
	for (size_t i = 0; i < length; i++) {
		text += digits[bytes[i] >> 4];
		text += digits[bytes[i] & 15];
	}
	return text;
}

} // namespace addon

#endif
