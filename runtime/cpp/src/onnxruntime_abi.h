// The few entries of ONNX Runtime's C interface that are called here, by their position in its table.
//
// No package of Python's or Debian's has the header, so that a build that needed it could not run where the library is
// had by `pip install onnxruntime`. The table only grows at its end, a promise that the header itself checks: position
// 101 ends what version 1 has. Where a header is at hand, `-DONNXRUNTIME_INCLUDE=...` compares these positions with it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cat2dog::ort {

struct Status;
struct Env;
struct Session;
struct SessionOptions;
struct TypeInfo;
struct TensorInfo;
struct MemoryInfo;
struct Value;
struct Allocator;

constexpr std::uint32_t kVersion = 1;

struct ApiBase {
    void const* const* (*get_api)(std::uint32_t version);
    char const* (*get_version)();
};

enum ElementType { kFloat = 1, kUint8 = 2 };

// name, position, parameters; each answers a Status, null where all is well.
#define CAT2DOG_ORT_CALLS(CALL)                                                                                       \
    CALL(CreateEnv, 3, int level, char const* name, Env** made)                                                      \
    CALL(CreateSession, 7, Env const*, char const* path, SessionOptions const*, Session** made)                      \
    CALL(Run, 9, Session*, void const* options, char const* const* input_names, Value const* const* inputs,         \
         std::size_t input_count, char const* const* output_names, std::size_t output_count, Value** outputs)         \
    CALL(CreateSessionOptions, 10, SessionOptions** made)                                                           \
    CALL(SetSessionLogSeverityLevel, 22, SessionOptions*, int level)                                                 \
    CALL(SetIntraOpNumThreads, 24, SessionOptions*, int threads)                                                     \
    CALL(SessionGetInputCount, 30, Session const*, std::size_t* count)                                               \
    CALL(SessionGetOutputCount, 31, Session const*, std::size_t* count)                                              \
    CALL(SessionGetInputTypeInfo, 33, Session const*, std::size_t index, TypeInfo** made)                            \
    CALL(SessionGetOutputTypeInfo, 34, Session const*, std::size_t index, TypeInfo** made)                           \
    CALL(SessionGetInputName, 36, Session const*, std::size_t index, Allocator*, char** made)                        \
    CALL(SessionGetOutputName, 37, Session const*, std::size_t index, Allocator*, char** made)                       \
    CALL(CreateTensorWithDataAsOrtValue, 49, MemoryInfo const*, void* data, std::size_t bytes,                       \
         std::int64_t const* shape, std::size_t rank, int type, Value** made)                                          \
    CALL(CastTypeInfoToTensorInfo, 55, TypeInfo const*, TensorInfo const** cast)                                     \
    CALL(GetTensorElementType, 60, TensorInfo const*, int* type)                                                     \
    CALL(GetDimensionsCount, 61, TensorInfo const*, std::size_t* rank)                                               \
    CALL(GetDimensions, 62, TensorInfo const*, std::int64_t* shape, std::size_t rank)                                \
    CALL(CreateCpuMemoryInfo, 69, int allocator, int memory, MemoryInfo** made)                                      \
    CALL(AllocatorFree, 76, Allocator*, void* memory)                                                                \
    CALL(GetAllocatorWithDefaultOptions, 78, Allocator** found)

#define CAT2DOG_ORT_RELEASES(RELEASE)      \
    RELEASE(Env, 92)                       \
    RELEASE(Status, 93)                    \
    RELEASE(MemoryInfo, 94)                \
    RELEASE(Session, 95)                   \
    RELEASE(Value, 96)                     \
    RELEASE(TypeInfo, 98)                  \
    RELEASE(SessionOptions, 100)

// Answers a text that lives as long as the status.
constexpr std::size_t kGetErrorMessage = 2;

}  // namespace cat2dog::ort
