#include <csetjmp>
#include <cstdio>
#include <cstring>

// After <cstdio>, whose FILE and size_t it uses.
#include <jpeglib.h>

#include "error.h"
#include "picture.h"

#ifndef LIBJPEG_TURBO_VERSION
#error "another JPEG library than libjpeg-turbo: its pixels differ from those that the Python side sees"
#endif

namespace cat2dog {
namespace {

// libjpeg reports an error by a function that must not return: here it jumps back to where the work began.
struct Faults {
    jpeg_error_mgr manager;
    std::jmp_buf back;
    char message[JMSG_LENGTH_MAX];
    bool seen;
};

void keep_message(j_common_ptr info) {
    auto* const faults = reinterpret_cast<Faults*>(info->err);
    if (!faults->seen) info->err->format_message(info, faults->message);
    faults->seen = true;
}

void on_error(j_common_ptr info) {
    keep_message(info);
    std::longjmp(reinterpret_cast<Faults*>(info->err)->back, 1);
}

// A negative level is a warning: the data is damaged, and libjpeg goes on with a guess.
void on_message(j_common_ptr info, int level) {
    if (level < 0) keep_message(info);
}

enum class Step { kHeader, kPixels };

// Nothing in here has a destructor: the jump would pass it over.
bool run(jpeg_decompress_struct& info, Faults& faults, Step step, std::uint8_t* pixels) {
    if (setjmp(faults.back) != 0) return false;
    if (step == Step::kHeader) {
        jpeg_read_header(&info, TRUE);
        return true;
    }
    info.out_color_space = JCS_RGB;
    info.dct_method = JDCT_ISLOW;
    info.do_fancy_upsampling = TRUE;
    jpeg_start_decompress(&info);
    std::size_t const stride = std::size_t{info.output_width} * 3;
    while (info.output_scanline < info.output_height) {
        JSAMPROW row = pixels + stride * info.output_scanline;
        jpeg_read_scanlines(&info, &row, 1);
    }
    jpeg_finish_decompress(&info);
    return true;
}

class Decoder {
public:
    explicit Decoder(Bytes const& data) {
        std::memset(&info_, 0, sizeof info_);
        std::memset(&faults_, 0, sizeof faults_);
        info_.err = jpeg_std_error(&faults_.manager);
        faults_.manager.error_exit = on_error;
        faults_.manager.emit_message = on_message;
        jpeg_create_decompress(&info_);
        jpeg_mem_src(&info_, data.data(), static_cast<unsigned long>(data.size()));
    }
    ~Decoder() { jpeg_destroy_decompress(&info_); }
    Decoder(Decoder const&) = delete;
    Decoder& operator=(Decoder const&) = delete;

    Picture picture(std::string const& name) {
        step(Step::kHeader, nullptr, name);
        bool const grey_or_colour = info_.jpeg_color_space == JCS_GRAYSCALE || info_.jpeg_color_space == JCS_YCbCr ||
                                    info_.jpeg_color_space == JCS_RGB;
        if (!grey_or_colour || info_.data_precision != 8) {
            throw bad_input(name + " is a JPEG of another kind; expected colour or grey, 8 bits: convert it first");
        }
        std::uint64_t const count = std::uint64_t{info_.image_width} * info_.image_height;
        std::string const size = std::to_string(info_.image_width) + " x " + std::to_string(info_.image_height);
        if (count > kMostPixels) {
            throw bad_input(name + " is " + size + " pixels, more than the " + std::to_string(kMostPixels / 1'000'000) + " million allowed");
        }
        Picture made{static_cast<int>(info_.image_height), static_cast<int>(info_.image_width), Bytes(count * 3)};
        step(Step::kPixels, made.pixels.data(), name);
        return made;
    }

private:
    void step(Step step, std::uint8_t* pixels, std::string const& name) {
        bool const done = run(info_, faults_, step, pixels);
        if (!done || faults_.seen) throw bad_input(name + " is damaged: " + faults_.message);
    }

    jpeg_decompress_struct info_;
    Faults faults_;
};

}  // namespace

Picture decode_jpeg(Bytes const& data, std::string const& name) {
    if (data.size() < 3 || data[0] != 0xFF || data[1] != 0xD8 || data[2] != 0xFF) {
        throw bad_input(name + " is no JPEG; expected one: convert it first");
    }
    return Decoder(data).picture(name);
}

}  // namespace cat2dog
