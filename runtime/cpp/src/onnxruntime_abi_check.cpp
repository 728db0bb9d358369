// Compares the positions in onnxruntime_abi.h with a header of ONNX Runtime's; it is compiled and never run.
#include <onnxruntime_c_api.h>

#include "onnxruntime_abi.h"

#define CHECK(name, position) \
    static_assert(offsetof(OrtApi, name) == (position) * sizeof(void*), #name " is at another position");
#define CHECK_CALL(name, position, ...) CHECK(name, position)
#define CHECK_RELEASE(name, position) CHECK(Release##name, position)

CAT2DOG_ORT_CALLS(CHECK_CALL)
CAT2DOG_ORT_RELEASES(CHECK_RELEASE)
CHECK(GetErrorMessage, cat2dog::ort::kGetErrorMessage)
static_assert(cat2dog::ort::kFloat == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
static_assert(cat2dog::ort::kUint8 == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8);
