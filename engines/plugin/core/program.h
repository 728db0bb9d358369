// The two fields of a node, checked: the launch plan, and the kernel images that it names.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "plan.h"

namespace cat2dog {

// Never changes once made, so any number of plugins and threads share one.
struct Program {
    std::string text;    // the plan, without trailing NULs
    std::string images;  // one after the other
    Plan plan;

    unsigned char const* image(int index) const noexcept {
        return reinterpret_cast<unsigned char const*>(images.data()) + plan.images[static_cast<std::size_t>(index)].offset;
    }

    // `images` may end in up to 8 zeros beyond what the plan counts: parsers pad. Raises Error for a text that is no plan
    // and for images whose length or hash is another.
    static std::shared_ptr<Program const> make(std::string_view text, std::string_view images);
};

}  // namespace cat2dog
