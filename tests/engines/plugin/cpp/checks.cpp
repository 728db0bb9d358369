#include "checks.h"

#include <dlfcn.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "allocations.h"
#include "core/fnv.h"
#include "fake_cuda.h"
#include "host.h"

namespace host {
namespace {

using nvinfer1::DataType;
using nvinfer1::PluginFieldType;

// The fake driver's own functions.
struct Fake {
    decltype(&::fake_reset) reset;
    decltype(&::fake_counts) counts;
    decltype(&::fake_launch) launch;
    decltype(&::fake_set_capability) set_capability;
    decltype(&::fake_set_context) set_context;
    decltype(&::fake_fail_launches) fail_launches;
} fake;

char const* library_path = nullptr;

#define EXPECT(condition)                                                                             \
    do {                                                                                              \
        if (!(condition)) throw std::runtime_error(std::string(#condition) + " is false, line " + std::to_string(__LINE__)); \
    } while (false)

#define EXPECT_EQUAL(value, expected)                                                                       \
    do {                                                                                                    \
        auto const& given_ = (value);                                                                       \
        auto const& wanted_ = (expected);                                                                   \
        if (!(given_ == wanted_)) {                                                                         \
            std::ostringstream text_;                                                                       \
            text_ << #value << " is " << given_ << ", expected " << wanted_ << ", line " << __LINE__;       \
            throw std::runtime_error(text_.str());                                                          \
        }                                                                                                   \
    } while (false)

// Whether the log since the last look says `part`; looks once.
void expect_logged(char const* part, int line) {
    std::string const log = take_log();
    if (log.find(part) == std::string::npos) {
        throw std::runtime_error("the log says '" + log + "', expected '" + part + "' in it, line " + std::to_string(line));
    }
}
#define EXPECT_LOGGED(part) expect_logged(part, __LINE__)

std::string const kAttention = "FAKE\nattention 8 8 8 4 8 4 8 128 128\nend\n";
std::string const kCombine = "FAKE\ncombine 8 4\nother 8\nend\n";

std::string image_line(std::string const& image) {
    char line[64];
    std::snprintf(line, sizeof(line), "image %zu %016llx\n", image.size(),
        static_cast<unsigned long long>(
            cat2dog::fnv1a(reinterpret_cast<unsigned char const*>(image.data()), image.size())));
    return line;
}

struct Fields {
    std::string launch;
    std::string images;
};

Fields plan(std::string const& target = "target 90 exact", char const* type = "fp16") {
    std::string const text = std::string("cat2dog-launch 1\n") + target + "\ninput " + type + " B 256 3840\noutput " + type +
        " B 256 1280\nworkspace B*1024\n" + image_line(kAttention) + image_line(kCombine) +
        "kernel 0 attention\ngrid B*20 2 1\nblock 384 1 1\nshared 197632\ncluster 2 1 1\nserial programmatic\n"
        "arg input 0 B*16\narg output 0 0\narg workspace 512\narg i32 B*256\narg i64 4294967296\narg f32 0x1.8p-1\narg null\n"
        "arg tensormap input 0 0 fp16 128B\ndims 64 60*B 256\nstrides 128 7680\nbox 64 1 128\n"
        "arg tensormap output 0 32 fp16 none\ndims 1280\nstrides\nbox 256\n"
        "kernel 1 combine\ngrid cdiv(B,2) 1 1\nblock 32 4 1\nshared 0\narg output 0 64\narg f32 0.25\nend\n";
    return {text, kAttention + kCombine};
}

// A plan without tensor maps, of one kernel.
Fields small_plan(int shared = 100, char const* kernel = "other", char const* grid = "B 1 1") {
    std::string const text = "cat2dog-launch 1\ntarget 90 family\ninput fp32 B 8\noutput fp32 B 8\n" + image_line(kCombine) +
        "kernel 0 " + kernel + "\ngrid " + grid + "\nblock 8 1 1\nshared " + std::to_string(shared) + "\narg output 0 0\nend\n";
    return {text, kCombine};
}

Field text_field(std::string const& text) {
    return {"launch", PluginFieldType::kCHAR, text, static_cast<int>(text.size())};
}
Field image_field(std::string const& bytes) {
    return {"images", PluginFieldType::kINT8, bytes, static_cast<int>(bytes.size())};
}

std::unique_ptr<Plugin> make(Fields const& fields) {
    std::unique_ptr<Plugin> plugin = create("FusedAttention", {text_field(fields.launch), image_field(fields.images)});
    if (plugin == nullptr) throw std::runtime_error("no plugin: " + take_log());
    return plugin;
}

// A call of `plan()` with its tensors.
struct Call {
    explicit Call(std::int64_t batch, DataType type = DataType::kHALF)
        : inputs{{type, {batch, 256, 3840}}}, outputs{{type, {batch, 256, 1280}}} {}
    static Call small(std::int64_t batch) {
        Call call(batch);
        call.inputs = {{DataType::kFLOAT, {batch, 8}}};
        call.outputs = {{DataType::kFLOAT, {batch, 8}}};
        return call;
    }
    int enqueue(Plugin& plugin) {
        plugin.prepare(inputs, outputs);
        return run(plugin);
    }
    int run(Plugin& plugin) {
        void const* const in[] = {input};
        void* const out[] = {output};
        return plugin.enqueue(inputs, outputs, in, out, workspace, stream);
    }
    std::vector<Tensor> inputs, outputs;
    char* input = reinterpret_cast<char*>(0x7f0000000000);
    char* output = reinterpret_cast<char*>(0x7f1000000000);
    char* workspace = reinterpret_cast<char*>(0x7f2000000000);
    cudaStream_t stream = reinterpret_cast<cudaStream_t>(0x1234);
};

template <typename T>
T value(FakeLaunch const& launch, int index) {
    T read{};
    std::memcpy(&read, launch.values[index], sizeof(T));
    return read;
}

void registration() {
    std::vector<std::string> const names = registered();
    EXPECT_EQUAL(names.size(), 3u);
    EXPECT_EQUAL(names[0], "cat2dog::FusedAttention 1");
    EXPECT_EQUAL(names[1], "cat2dog::FusedLinear 1");
    EXPECT_EQUAL(names[2], "cat2dog::FusedPixels 1");
    EXPECT_EQUAL(describe_creator("FusedAttention"),
        "FusedAttention 1: launch=" + std::to_string(static_cast<int>(PluginFieldType::kCHAR)) +
            " images=" + std::to_string(static_cast<int>(PluginFieldType::kINT8)));
    auto const again = reinterpret_cast<int (*)()>(::dlsym(library, "cat2dog_register"));
    // A registry that loads the library finds its names free, for all that they were taken when it was opened.
    EXPECT(load_library(library_path, true));
    EXPECT_EQUAL(registered().size(), 3u);
    EXPECT(!load_library(library_path, true));
    EXPECT_EQUAL(again(), 0);  // they are there, whoever put them
    EXPECT_EQUAL(registered().size(), 3u);
    // Registered firmly, they stay when another registry loads the library.
    forget_creators();
    EXPECT_EQUAL(again(), 0);
    EXPECT_EQUAL(again(), 0);
    EXPECT(load_library(library_path, false));
    EXPECT_EQUAL(registered().size(), 3u);
    take_log();
}

void fields_in_every_type() {
    Fields const fields = plan();
    Field launch = text_field(fields.launch + std::string(3, '\0'));
    std::string padded = fields.images + std::string((4 - fields.images.size() % 4) % 4, '\0');
    std::vector<Field> const images{image_field(fields.images),
        {"images", PluginFieldType::kCHAR, fields.images + '\0', static_cast<int>(fields.images.size()) + 1},
        {"images", PluginFieldType::kUNKNOWN, fields.images, static_cast<int>(fields.images.size())},
        {"images", PluginFieldType::kINT32, padded, static_cast<int>(padded.size() / 4)}};
    std::string first;
    for (Field const& each : images) {
        std::unique_ptr<Plugin> const plugin = create("FusedLinear", {each, launch});
        EXPECT(plugin != nullptr);
        EXPECT_EQUAL(plugin->identity(), "cat2dog::FusedLinear 1");
        if (first.empty()) first = plugin->serialize();
        EXPECT(plugin->serialize() == first);  // padding is gone
    }
}

void damaged_fields() {
    Fields const good = plan();
    auto const refuse = [](std::vector<Field> const& fields, char const* why) {
        EXPECT(create("FusedAttention", fields) == nullptr);
        EXPECT_LOGGED(why);
    };
    Field const text = text_field(good.launch);
    Field const images = image_field(good.images);
    refuse({}, "cat2dog::FusedAttention 'layer 7': no field 'launch'");
    refuse({text}, "no field 'images'");
    refuse({images}, "no field 'launch'");
    refuse({text, images, text}, "field 'launch' is there twice");
    refuse({text, images, {"heads", PluginFieldType::kINT32, "1234", 1}}, "unknown field 'heads'");
    refuse({text, {"images", PluginFieldType::kFLOAT32, "12345678", 2}}, "field 'images' has type 1");
    refuse({text, image_field(good.images.substr(1))}, "the field is damaged");
    refuse({text, image_field(good.images + "x")}, "images end in something else");
    refuse({text, image_field(good.images + std::string(9, '\0'))}, "the field is damaged");
    for (std::size_t i = 0; i < good.images.size(); ++i) {
        std::string flipped = good.images;
        flipped[i] = static_cast<char>(flipped[i] ^ 4);
        refuse({text, image_field(flipped)}, "has hash");
    }
    // Cut or with one byte changed, a text is no plan, or else still a sound one: never a crash, never silence.
    int sound = 0;
    for (std::size_t i = 0; i < good.launch.size(); ++i) {
        refuse({text_field(good.launch.substr(0, i)), images}, "cat2dog::FusedAttention 'layer 7': ");
        std::string changed = good.launch;
        changed[i] = static_cast<char>(changed[i] ^ 1);
        std::unique_ptr<Plugin> const plugin = create("FusedAttention", {text_field(changed), images});
        if (plugin != nullptr) ++sound;
        EXPECT((plugin == nullptr) == !take_log().empty());
    }
    EXPECT(sound > 0);
    refuse({text_field(std::string(70000, 'a')), images}, "at most 65536");
    std::unique_ptr<Plugin> const bf16 = create(
        "FusedAttention", {text_field(plan("target 90 exact", "bf16").launch), image_field(good.images)});
    EXPECT_EQUAL(bf16 != nullptr, knows_bf16);
    if (!knows_bf16) EXPECT_LOGGED("bf16");
}

void shapes_types_formats() {
    std::unique_ptr<Plugin> const plugin = make(plan());
    EXPECT_EQUAL(plugin->identity(), "cat2dog::FusedAttention 1");
    EXPECT_EQUAL(plugin->outputs(), 1);
    EXPECT(plugin->output_type(0) == DataType::kHALF);
    std::vector<Sizes> const shapes = plugin->output_shapes({{3, 256, 3840}});
    EXPECT(shapes == (std::vector<Sizes>{{3, 256, 1280}}));
    EXPECT(plugin->output_shapes({{3, 256}}).empty());
    EXPECT_LOGGED("input 0 has 2 dimensions, expected 3");
    EXPECT(plugin->output_shapes({{3, 256, 3840}, {1}}).empty());
    EXPECT_LOGGED("2 inputs, expected 1");
    EXPECT_EQUAL(plugin->workspace({{4, 256, 3840}}), 4096u);
    std::vector<Tensor> tensors{{DataType::kHALF, {1, 256, 3840}}, {DataType::kHALF, {1, 256, 1280}}};
    EXPECT(plugin->supports(0, tensors, 1) && plugin->supports(1, tensors, 1));
    tensors[0].type = DataType::kFLOAT;
    tensors[1].format = nvinfer1::TensorFormat::kCHW32;
    EXPECT(!plugin->supports(0, tensors, 1) && !plugin->supports(1, tensors, 1));
    EXPECT_EQUAL(take_log(), "");
    EXPECT(!plugin->supports(0, tensors, 2));
    EXPECT_LOGGED("2 inputs, expected 1");
    EXPECT(plugin->configure({{1, 256, 3840}}, {{2, 256, 3840}}, {{8, 256, 3840}}, {tensors[1]}));
    EXPECT_EQUAL(take_log(), "");
    EXPECT_EQUAL(plugin->configure({{1, 256, 3841}}, {{2, 256, 3841}}, {{8, 256, 3841}}, {tensors[1]}), !refuses_early);
    EXPECT_LOGGED("expected 3840 in place of 3841");
    // A batch whose grid CUDA cannot take is found while the engine is built.
    EXPECT_EQUAL(plugin->configure({{1, 256, 3840}}, {{1, 256, 3840}}, {{200000000, 256, 3840}}, {tensors[1]}), !refuses_early);
    EXPECT_LOGGED("at most 2147483647");
}

void every_expression_reaches_tensorrt() {
    std::string const text = "cat2dog-launch 1\ntarget 90 family\ninput fp32 B N\n"
        "output fp32 B+N-1 B*N/3 cdiv(B*N,3) min(B,N) max(B,(N+1)*2)\n" + image_line(kCombine) +
        "kernel 0 other\ngrid 1 1 1\nblock 1 1 1\nshared 0\narg null\nend\n";
    std::unique_ptr<Plugin> const plugin = make({text, kCombine});
    std::vector<Sizes> const shapes = plugin->output_shapes({{5, 4}});
    EXPECT(shapes == (std::vector<Sizes>{{8, 6, 7, 4, 10}}));
}

void serialization() {
    std::unique_ptr<Plugin> const plugin = make(plan());
    std::string const bytes = plugin->serialize();
    std::unique_ptr<Plugin> const again = deserialize("FusedAttention", bytes);
    EXPECT(again != nullptr && again->serialize() == bytes);
    EXPECT(again->clone()->serialize() == bytes);
    if (!refuses_early) {  // V2 writes its own bytes; TensorRT writes V3's
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            std::string damaged = bytes;
            damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
            EXPECT(deserialize("FusedAttention", damaged) == nullptr);
            EXPECT_LOGGED("cat2dog::FusedAttention 'layer 7': ");
            EXPECT(deserialize("FusedAttention", bytes.substr(0, i)) == nullptr);
            EXPECT_LOGGED("cat2dog::FusedAttention 'layer 7': ");
        }
    }
}

void launches() {
    fake.reset();
    {
        std::unique_ptr<Plugin> const engine = deserialize("FusedAttention", make(plan())->serialize());
        std::unique_ptr<Plugin> const plugin = engine->attach();
        EXPECT(plugin != nullptr);
        EXPECT_EQUAL(fake.counts().loads, 2);
        Call call(3);
        EXPECT(plugin->shape_change(call.inputs, call.outputs));
        EXPECT_EQUAL(call.enqueue(*plugin), 0);
        EXPECT_EQUAL(fake.counts().launches, 2);
        EXPECT_EQUAL(fake.counts().loads, 2);
        FakeLaunch const& first = *fake.launch(0);
        EXPECT_EQUAL(std::string(first.kernel), "attention");
        EXPECT(first.grid[0] == 60 && first.grid[1] == 2 && first.grid[2] == 1);
        EXPECT(first.block[0] == 384 && first.block[1] == 1 && first.block[2] == 1);
        EXPECT(first.shared == 197632 && first.most_shared == 197632);
        EXPECT(first.cluster[0] == 2 && first.cluster[1] == 1 && first.cluster[2] == 1);
        EXPECT(first.programmatic);
        EXPECT(first.stream == call.stream);
        EXPECT(value<char*>(first, 0) == call.input + 48);
        EXPECT(value<char*>(first, 1) == call.output);
        EXPECT(value<char*>(first, 2) == call.workspace + 512);
        EXPECT_EQUAL(value<std::int32_t>(first, 3), 768);
        EXPECT_EQUAL(value<std::int64_t>(first, 4), 4294967296);
        EXPECT_EQUAL(value<float>(first, 5), 0.75f);
        EXPECT(value<void*>(first, 6) == nullptr);
        FakeMap const map = value<FakeMap>(first, 7);
        EXPECT(map.address == call.input && map.type == CU_TENSOR_MAP_DATA_TYPE_FLOAT16 && map.rank == 3);
        EXPECT(map.swizzle == CU_TENSOR_MAP_SWIZZLE_128B);
        EXPECT(map.dims[0] == 64 && map.dims[1] == 180 && map.dims[2] == 256);
        EXPECT(map.strides[0] == 128 && map.strides[1] == 7680);
        EXPECT(map.box[0] == 64 && map.box[1] == 1 && map.box[2] == 128);
        FakeMap const line = value<FakeMap>(first, 8);
        EXPECT(line.address == call.output + 32 && line.rank == 1 && line.dims[0] == 1280 && line.box[0] == 256);
        EXPECT(line.swizzle == CU_TENSOR_MAP_SWIZZLE_NONE);
        FakeLaunch const& second = *fake.launch(1);
        EXPECT_EQUAL(std::string(second.kernel), "combine");
        EXPECT(second.grid[0] == 2 && second.block[1] == 4 && second.cluster[0] == 1 && !second.programmatic);
        EXPECT(value<char*>(second, 0) == call.output + 64);
        EXPECT_EQUAL(value<float>(second, 1), 0.25f);
        call.workspace = nullptr;
        EXPECT(call.enqueue(*plugin) != 0);
        EXPECT_LOGGED("no workspace, expected 3072 bytes");
    }
    FakeCounts const counts = fake.counts();
    EXPECT(counts.unloads == 2 && counts.context_depth == 0 && counts.waits == 0);
}

// As a fused linear layer: several inputs, one of them with a size that another kernel chose, and two outputs.
void two_outputs() {
    fake.reset();
    std::string const image = "FAKE\nlinear 8 8 8 8 4\nend\n";
    std::string const text = "cat2dog-launch 1\ntarget 90 exact\ninput fp16 B 256 1280\ninput fp16 640 1280\n"
        "input fp32 B 256 S 2\noutput fp16 B 256 640\noutput fp32 B 256 5 2\n" + image_line(image) +
        "kernel 0 linear\ngrid cdiv(B*256,128) 5 1\nblock 384 1 1\nshared 0\nserial programmatic\n"
        "arg input 1 0\narg input 2 0\narg output 0 0\narg output 1 0\narg i32 S\nend\n";
    std::unique_ptr<Plugin> const made = create("FusedLinear", {text_field(text), image_field(image)});
    EXPECT(made != nullptr);
    std::unique_ptr<Plugin> const engine = deserialize("FusedLinear", made->serialize());
    EXPECT_EQUAL(engine->outputs(), 2);
    EXPECT(engine->output_type(0) == DataType::kHALF && engine->output_type(1) == DataType::kFLOAT);
    std::vector<Sizes> const in{{3, 256, 1280}, {640, 1280}, {3, 256, 20, 2}};
    EXPECT(engine->output_shapes(in) == (std::vector<Sizes>{{3, 256, 640}, {3, 256, 5, 2}}));
    std::vector<Tensor> tensors{{DataType::kHALF, in[0]}, {DataType::kHALF, in[1]}, {DataType::kFLOAT, in[2]},
        {DataType::kHALF, {3, 256, 640}}, {DataType::kFLOAT, {3, 256, 5, 2}}};
    for (int i = 0; i < 5; ++i) EXPECT(engine->supports(i, tensors, 3));
    tensors[4].type = DataType::kHALF;
    EXPECT(engine->supports(3, tensors, 3) && !engine->supports(4, tensors, 3));
    tensors[4].type = DataType::kFLOAT;
    std::vector<Tensor> const inputs(tensors.begin(), tensors.begin() + 3);
    std::vector<Tensor> outputs(tensors.begin() + 3, tensors.end());
    EXPECT(engine->configure(in, in, in, outputs));
    std::unique_ptr<Plugin> const plugin = engine->attach();
    EXPECT(plugin != nullptr && plugin->shape_change(inputs, outputs));
    char* const base = reinterpret_cast<char*>(0x7f0000000000);
    void const* const given[] = {base, base + 4096, base + 8192};
    void* const left[] = {base + 12288, base + 16384};
    plugin->prepare(inputs, outputs);
    EXPECT_EQUAL(plugin->enqueue(inputs, outputs, given, left, nullptr, Call(1).stream), 0);
    FakeLaunch const& launch = *fake.launch(0);
    EXPECT(launch.programmatic && launch.grid[0] == 6 && launch.grid[1] == 5);
    EXPECT(value<char*>(launch, 0) == base + 4096 && value<char*>(launch, 1) == base + 8192);
    EXPECT(value<char*>(launch, 2) == base + 12288 && value<char*>(launch, 3) == base + 16384);
    EXPECT_EQUAL(value<std::int32_t>(launch, 4), 20);
    outputs[1].sizes = {3, 256, 6, 2};
    plugin->prepare(inputs, outputs);
    EXPECT(plugin->enqueue(inputs, outputs, given, left, nullptr, Call(1).stream) != 0);
    EXPECT_LOGGED("output 1");
    EXPECT_EQUAL(take_log(), "");
}

void modules_are_shared() {
    fake.reset();
    {
        std::vector<std::unique_ptr<Plugin>> layers, contexts;
        for (int i = 0; i < 25; ++i) {
            layers.push_back(make(plan()));
            for (int j = 0; j < 2; ++j) contexts.push_back(layers.back()->attach());
        }
        EXPECT_EQUAL(fake.counts().loads, 2);
        layers.clear();
        EXPECT_EQUAL(fake.counts().unloads, 0);
        EXPECT_EQUAL(Call(1).enqueue(*contexts.back()), 0);
        // Another CUDA context needs its own.
        std::unique_ptr<Plugin> const elsewhere = make(plan());
        fake.set_context(2);
        std::unique_ptr<Plugin> const attached = elsewhere->attach();
        EXPECT_EQUAL(fake.counts().loads, 4);
        EXPECT_EQUAL(Call(1).enqueue(*attached), 0);
        EXPECT_EQUAL(fake.launch(fake.counts().launches - 1)->context, 2);
        EXPECT(Call(1).enqueue(*contexts.back()) != 0);
        EXPECT_LOGGED("cuLaunchKernelEx");
        fake.set_context(0);
        EXPECT(make(plan())->attach() == nullptr);
        EXPECT_LOGGED("no CUDA context is current");
        fake.set_context(1);
    }
    EXPECT(fake.counts().unloads == 4 && fake.counts().context_depth == 0);
}

void shared_memory_only_grows() {
    fake.reset();
    std::unique_ptr<Plugin> const big = make(small_plan(150000));
    std::unique_ptr<Plugin> const little = make(small_plan(60000));
    std::unique_ptr<Plugin> const first = big->attach();
    std::unique_ptr<Plugin> const second = little->attach();
    EXPECT_EQUAL(fake.counts().loads, 1);
    EXPECT_EQUAL(Call::small(1).enqueue(*first), 0);
    EXPECT_EQUAL(Call::small(1).enqueue(*second), 0);
    EXPECT_EQUAL(fake.launch(0)->most_shared, 150000u);
    EXPECT_EQUAL(fake.launch(1)->shared, 60000u);
}

void another_gpu() {
    auto const attaches = [](std::string const& target, int major, int minor) {
        fake.set_capability(major, minor);
        bool const done = make(plan(target))->attach() != nullptr;
        fake.set_capability(9, 0);
        if (!done) EXPECT_LOGGED("this GPU has compute capability");
        return done;
    };
    EXPECT(attaches("target 90 exact", 9, 0));
    EXPECT(!attaches("target 90 exact", 9, 1));
    EXPECT(!attaches("target 90 exact", 8, 0));
    EXPECT(attaches("target 80 family", 8, 0) && attaches("target 80 family", 8, 9));
    EXPECT(!attaches("target 86 family", 8, 0) && !attaches("target 80 family", 9, 0));
    EXPECT(attaches("target 120 exact", 12, 0) && !attaches("target 120 exact", 1, 20));
}

void what_the_driver_refuses() {
    std::unique_ptr<Plugin> const huge = make(small_plan(240 * 1024));
    EXPECT(huge->attach() == nullptr);
    EXPECT_LOGGED("kernel other: cuFuncSetAttribute of shared memory: CUDA_ERROR_OF_THE_FAKE (the fake driver's words)");
    EXPECT(make(small_plan(0, "absent"))->attach() == nullptr);
    EXPECT_LOGGED("kernel absent: cuModuleGetFunction");
    std::unique_ptr<Plugin> const plugin = make(plan())->attach();
    fake.fail_launches(true);
    EXPECT(Call(1).enqueue(*plugin) != 0);
    fake.fail_launches(false);
    EXPECT_LOGGED("kernel attention: cuLaunchKernelEx: CUDA_ERROR_OF_THE_FAKE; grid 20 2 1, block 384 1 1, 197632 bytes");
    Call crooked(1);
    crooked.input += 8;
    EXPECT(crooked.enqueue(*plugin) != 0);
    EXPECT_LOGGED("refuses tensor map 0");
}

void wrong_calls() {
    fake.reset();
    std::unique_ptr<Plugin> const plugin = make(plan())->attach();
    int const loaded = fake.counts().loads;
    auto const refuse = [&](Call call, char const* why) {
        EXPECT_EQUAL(plugin->shape_change(call.inputs, call.outputs), !refuses_early);
        if (refuses_early) EXPECT_LOGGED(why);
        EXPECT(call.enqueue(*plugin) != 0);
        EXPECT_LOGGED(why);
    };
    Call call(2);
    call.inputs[0].sizes = {2, 255, 3840};
    refuse(call, "input 0 has shape [2,255,3840], expected 256 in place of 255");
    call = Call(2);
    call.inputs[0].sizes = {2, 256};
    refuse(call, "expected 3 dimensions");
    call = Call(2);
    call.outputs[0].sizes = {3, 256, 1280};
    refuse(call, "output 0 has shape [3,256,1280], expected [2,256,1280]");
    refuse(Call(2, DataType::kFLOAT), "expected fp16");
    call = Call(2);
    call.outputs[0].format = nvinfer1::TensorFormat::kCHW32;
    refuse(call, "expected linear");
    refuse(Call(200000000), "at most 2147483647");
    call = Call(2);
    call.inputs[0].sizes = {-1, 256, 3840};
    refuse(call, "which is not known");
    EXPECT_EQUAL(fake.counts().launches, 0);
    std::unique_ptr<Plugin> const early = make(plan());
    EXPECT(Call(1).enqueue(*early) != 0);
    EXPECT_LOGGED("its kernels are not loaded");
    EXPECT_EQUAL(fake.counts().loads, loaded);
    // A batch of none is nothing to launch, and no error.
    std::unique_ptr<Plugin> const small = make(small_plan())->attach();
    EXPECT_EQUAL(Call::small(0).enqueue(*small), 0);
    EXPECT_EQUAL(fake.counts().launches, 0);
    EXPECT_EQUAL(take_log(), "");
}

void many_threads() {
    constexpr int kThreads = 4;
    constexpr int kCalls = 500;
    fake.reset();
    std::unique_ptr<Plugin> const engine = make(plan());
    std::vector<std::unique_ptr<Plugin>> contexts;
    for (int i = 0; i < kThreads; ++i) contexts.push_back(engine->attach());
    int const loaded = fake.counts().loads;
    std::atomic<int> failed{0};
    std::vector<std::thread> threads;
    take_allocations();
    for (int i = 0; i < kThreads; ++i) {
        threads.emplace_back([&, i] {
            Call call(i + 1);
            Plugin& plugin = *contexts[static_cast<std::size_t>(i)];
            plugin.prepare(call.inputs, call.outputs);
            fake.set_context(1);  // the loader makes thread-local storage of a library on first use
            count_allocations(true);
            for (int j = 0; j < kCalls; ++j) failed += call.run(plugin) != 0;
            count_allocations(false);
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQUAL(failed.load(), 0);
    EXPECT_EQUAL(take_allocations(), 0);
    EXPECT_EQUAL(fake.counts().launches, 2 * kThreads * kCalls);
    EXPECT_EQUAL(fake.counts().loads, loaded);
    int seen[kThreads + 1] = {};
    for (int i = 0; i < fake.counts().launches; ++i) {
        FakeLaunch const& launch = *fake.launch(i);
        if (std::strcmp(launch.kernel, "attention") != 0) continue;
        ++seen[launch.grid[0] / 20];
        EXPECT_EQUAL(value<std::int32_t>(launch, 3), static_cast<int>(launch.grid[0] / 20 * 256));
    }
    for (int i = 1; i <= kThreads; ++i) EXPECT_EQUAL(seen[i], kCalls);
}

void attach_and_detach_from_many_threads() {
    fake.reset();
    std::unique_ptr<Plugin> const engine = make(plan());
    std::string const bytes = engine->serialize();
    std::vector<std::thread> threads;
    std::atomic<int> failed{0};
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            for (int j = 0; j < 50; ++j) {
                std::unique_ptr<Plugin> const mine = deserialize("FusedAttention", bytes);
                std::unique_ptr<Plugin> const attached = mine->attach();
                failed += attached == nullptr || Call(1).enqueue(*attached) != 0;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQUAL(failed.load(), 0);
    EXPECT_EQUAL(fake.counts().loads, fake.counts().unloads);
}

void logger_finder() {
    use_logger_finder(true);
    EXPECT(create("FusedAttention", {}) == nullptr);
    EXPECT_LOGGED("found: cat2dog::FusedAttention");
    use_logger_finder(false);
    EXPECT(create("FusedAttention", {}) == nullptr);
    EXPECT(take_log().find("found: ") == std::string::npos);
}

void old_driver() {
    EXPECT(make(plan())->attach() == nullptr);
    EXPECT_LOGGED("kernel attention needs tensor maps, which this CUDA driver lacks");
    std::unique_ptr<Plugin> const plugin = make(small_plan())->attach();
    EXPECT(plugin != nullptr && Call::small(1).enqueue(*plugin) == 0);
}

}  // namespace

int run_checks(char const* path, void* fake_driver, bool is_old) {
    library_path = path;
    fake.reset = reinterpret_cast<decltype(fake.reset)>(::dlsym(fake_driver, "fake_reset"));
    fake.counts = reinterpret_cast<decltype(fake.counts)>(::dlsym(fake_driver, "fake_counts"));
    fake.launch = reinterpret_cast<decltype(fake.launch)>(::dlsym(fake_driver, "fake_launch"));
    fake.set_capability = reinterpret_cast<decltype(fake.set_capability)>(::dlsym(fake_driver, "fake_set_capability"));
    fake.set_context = reinterpret_cast<decltype(fake.set_context)>(::dlsym(fake_driver, "fake_set_context"));
    fake.fail_launches = reinterpret_cast<decltype(fake.fail_launches)>(::dlsym(fake_driver, "fake_fail_launches"));
    struct Check {
        char const* name;
        void (*run)();
    };
    std::vector<Check> checks;
    if (is_old) {
        checks = {{"old driver", old_driver}};
    } else {
        checks = {{"registration", registration}, {"fields in every type", fields_in_every_type},
            {"damaged fields", damaged_fields}, {"shapes, types, formats", shapes_types_formats},
            {"every expression reaches TensorRT", every_expression_reaches_tensorrt}, {"serialization", serialization},
            {"launches", launches}, {"two outputs", two_outputs}, {"modules are shared", modules_are_shared},
            {"shared memory only grows", shared_memory_only_grows}, {"another GPU", another_gpu},
            {"what the driver refuses", what_the_driver_refuses}, {"wrong calls", wrong_calls},
            {"many threads", many_threads}, {"attach and detach from many threads", attach_and_detach_from_many_threads},
            {"logger finder", logger_finder}};
    }
    int failed = 0;
    for (Check const& check : checks) {
        try {
            check.run();
            std::printf("ok: %s\n", check.name);
        } catch (std::exception const& error) {
            ++failed;
            std::printf("FAILED: %s: %s\n", check.name, error.what());
        }
    }
    return failed;
}

}  // namespace host
