#include "program.h"

#include "error.h"
#include "fnv.h"

namespace cat2dog {

std::shared_ptr<Program const> Program::make(std::string_view text, std::string_view images) {
    constexpr std::size_t kMostPadding = 8;
    auto program = std::make_shared<Program>();
    program->plan = parse_plan(text);
    program->text = std::string(text.substr(0, text.find('\0')));
    Image const& last = program->plan.images.back();
    std::size_t const bytes = last.offset + last.length;
    if (images.size() < bytes || images.size() > bytes + kMostPadding) {
        fail("images of %zu bytes, the launch plan names %zu: the field is damaged", images.size(), bytes);
    }
    if (images.find_first_not_of('\0', bytes) != std::string_view::npos) {
        fail("images end in something else than the launch plan names: the field is damaged");
    }
    program->images = std::string(images.substr(0, bytes));
    for (std::size_t i = 0; i < program->plan.images.size(); ++i) {
        Image const& image = program->plan.images[i];
        std::uint64_t const hash = fnv1a(program->image(static_cast<int>(i)), image.length);
        if (hash != image.fnv) {
            fail("image %zu has hash %016llx, the launch plan says %016llx: the field is damaged", i,
                static_cast<unsigned long long>(hash), static_cast<unsigned long long>(image.fnv));
        }
    }
    return program;
}

}  // namespace cat2dog
