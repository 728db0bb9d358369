"""torchvision, installed or from its wheel: PyPI's is for the CUDA build of torch, with which alone its operators load.

Its classification networks use none of them. So where `import torchvision` fails, its registrations for those operators
are left out. Run as a program, since it may be left half imported: `python -m tests.zoo.resnet50.torchvision_or_skip`.
"""

from __future__ import annotations

import sys
import types


def torchvisions_resnet50():
    """`torchvision.models.resnet50`. Raises ImportError where there is no torchvision."""
    try:
        import torchvision
    except RuntimeError:  # "operator torchvision::nms does not exist"
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")
        import torchvision
    from torchvision.models import resnet50

    return torchvision.__version__, resnet50


def main() -> None:
    """Compare, and print what was compared."""
    import torch

    from zoo.resnet50.labels import labels_of
    from zoo.resnet50.weights import filled, seeded

    version, resnet50 = torchvisions_resnet50()
    torch.manual_seed(0)
    theirs = resnet50(weights=None).eval()
    ours = filled(theirs.state_dict(), "torchvision's own")
    for state in (theirs.state_dict(), seeded().state_dict()):
        theirs.load_state_dict(state)
        ours.load_state_dict(state)
        x = torch.randn(2, 3, 224, 224)
        with torch.inference_mode():
            assert torch.equal(theirs(x), ours(x)[0])
            embedding = torch.nn.Sequential(*list(theirs.children())[:-1])(x).flatten(1)
            assert torch.equal(embedding, ours(x)[1])
    assert labels_of(None)[1] == "goldfish"
    print(f"equal to torchvision {version}")


if __name__ == "__main__":
    main()
