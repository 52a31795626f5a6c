// The addon's index: every function that JavaScript can call, and where it lives.
//
// Nothing here is shared between environments but libbpf's print function, so the addon loads in the main thread and in
// every worker at once.
#include "calls.h"
#include "object.h"

namespace addon
{

template <Napi::Value (*call)(const Napi::CallbackInfo &)> void expose(Napi::Object exports, const char *name)
{
	exports.Set(name, Napi::Function::New<call>(exports.Env(), name));
}

static Napi::Object init(Napi::Env env, Napi::Object exports)
{
	libbpf_capture();
	env.SetInstanceData(new Environment());

	expose<object_open>(exports, "objectOpen");
	expose<object_set_global>(exports, "objectSetGlobal");
	expose<object_reuse_map>(exports, "objectReuseMap");
	expose<object_load>(exports, "objectLoad");
	expose<object_map>(exports, "objectMap");
	expose<object_programs>(exports, "objectPrograms");

	expose<program_run>(exports, "programRun");

	expose<map_lookup>(exports, "mapLookup");
	expose<map_update>(exports, "mapUpdate");
	expose<map_delete>(exports, "mapDelete");
	expose<map_entries>(exports, "mapEntries");

	expose<ring_open>(exports, "ringOpen");
	expose<ring_read>(exports, "ringRead");

	expose<link_attach>(exports, "linkAttach");
	expose<link_update>(exports, "linkUpdate");
	expose<attached_programs>(exports, "attachedPrograms");

	expose<socket_open>(exports, "socketOpen");
	expose<socket_option>(exports, "socketOption");
	expose<netns_create>(exports, "netnsCreate");
	expose<duplicate>(exports, "duplicate");

	expose<sock_diag>(exports, "sockDiag");

	expose<pin_open>(exports, "pinOpen");
	expose<pin>(exports, "pin");
	expose<handle_info>(exports, "info");
	expose<handle_close>(exports, "close");
	return exports;
}

} // namespace addon

static Napi::Object culvert_init(Napi::Env env, Napi::Object exports)
{
	return addon::init(env, exports);
}

NODE_API_MODULE(culvert, culvert_init)
