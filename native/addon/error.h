// How a failed call is told to JavaScript: an Error with `errno`, `code`, `syscall` and `argument`, thrown where the
// call was made, so that its stack is the caller's.
#ifndef CULVERT_ADDON_ERROR_H
#define CULVERT_ADDON_ERROR_H

#ifndef NAPI_VERSION
#define NAPI_VERSION 9
#endif
// A worker that is terminated in the middle of a call can be told nothing any more; without this node-addon-api would
// end the whole process over it.
#ifndef NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS
#define NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS
#endif
#include <napi.h>

#include <cerrno>
#include <cstring>
#include <iterator>
#include <string>

namespace addon
{

// The kernel's own number, of no libc: what bpf(2) says where a map or a program type has no such operation.
inline constexpr int kernel_enotsupp = 524;

// libbpf's own errors, from LIBBPF_ERRNO__LIBELF (4000) on.
inline constexpr int libbpf_first = 4000;
inline constexpr const char *libbpf_codes[] = {"LIBBPF_LIBELF", "LIBBPF_FORMAT", "LIBBPF_KVERSION", "LIBBPF_ENDIAN",
	"LIBBPF_INTERNAL", "LIBBPF_RELOC", "LIBBPF_LOAD", "LIBBPF_VERIFY", "LIBBPF_PROG2BIG", "LIBBPF_KVER",
	"LIBBPF_PROGTYPE", "LIBBPF_WRNGPID", "LIBBPF_INVSEQ", "LIBBPF_NLPARSE"};

inline bool is_libbpf(int error)
{
	return error >= libbpf_first && error < libbpf_first + static_cast<int>(std::size(libbpf_codes));
}

inline std::string error_code(int error)
{
	if (error == kernel_enotsupp)
		return "ENOTSUPP";
	if (is_libbpf(error))
		return libbpf_codes[error - libbpf_first];
	const char *name = strerrorname_np(error);
	return name != nullptr ? name : std::string("E").append(std::to_string(error));
}

inline std::string error_text(int error)
{
	if (error == kernel_enotsupp)
		return "Operation is not supported by the kernel";
	if (is_libbpf(error))
		return "Refused by libbpf";
	const char *text = strerrordesc_np(error);
	return text != nullptr ? text : "Unknown error";
}

// `error` may be an errno or libbpf's negative form of it. `detail` follows the message on lines of its own.
[[noreturn]] inline void throw_errno(Napi::Env env, int error, const char *syscall, const std::string &argument,
	const std::string &detail = std::string())
{
	if (error < 0)
		error = -error;
	std::string code = error_code(error);
	std::string message = code + ": " + error_text(error) + ", " + syscall + " '" + argument + "'";
	if (!detail.empty())
		message += "\n" + detail;
	Napi::Error thrown = Napi::Error::New(env, message);
	Napi::Object fields = thrown.Value();
	fields.Set("errno", Napi::Number::New(env, error));
	fields.Set("code", Napi::String::New(env, code));
	fields.Set("syscall", Napi::String::New(env, syscall));
	fields.Set("argument", Napi::String::New(env, argument));
	throw thrown;
}

[[noreturn]] inline void throw_type(Napi::Env env, const char *argument, const char *wanted)
{
	throw Napi::TypeError::New(env, std::string(argument) + ": " + wanted + " is wanted");
}

} // namespace addon

#endif
