"""``textdifuse convert STAGE1 STAGE2 FCM -o reference.safetensors``: convert the authors' published weights."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from textdifuse_ros.checkpoint import SUFFIX
from textdifuse_ros.errors import FileError

NAME = "convert"
HELP = "Convert the weights that the authors of Text-DiFuse published to a model of the family reference."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("encoder", metavar="STAGE1", help="Their diffusion_stage1.pth.")
    parser.add_argument("decoder", metavar="STAGE2", help="Their diffusion_stage2.pth.")
    parser.add_argument("control", metavar="FCM", help="Their FCM-VIS-IR.pt, or with --task medical FCM-Medi.pt.")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help=f"Model to write, ends in {SUFFIX}.")
    parser.add_argument(
        "--task",
        choices=("infrared_visible", "medical"),
        default="infrared_visible",
        help="What the FCM was trained for; medical fuses MRI, in the place of infrared, as the first source. "
        "Default: infrared_visible.",
    )


def run(arguments: argparse.Namespace) -> int:
    """Read the three files, check them and write the model.

    :returns: 0
    :raises TextDifuseError: a file is missing or is not the published one, or the output is one of them
    """
    output = Path(arguments.output)
    files = {name: getattr(arguments, name) for name in ("encoder", "decoder", "control")}
    if output.suffix != SUFFIX or output.is_dir():
        raise FileError("the output", f"a file ending in {SUFFIX}", repr(arguments.output))

    from textdifuse_ros.fusion.weights import save_reference
    from textdifuse_ros.networks.reference.networks import ReferenceConfig
    from textdifuse_ros.networks.reference.released import PROGRAM, read_released

    config = ReferenceConfig(task=arguments.task)
    tensors = read_released(files, config)
    sources = {name: {"file": Path(path).name, "sha256": _sha256(path)} for name, path in files.items()}
    save_reference(output, config, tensors, {"program": PROGRAM, "files": sources})
    parameters = sum(tensor.numel() for tensor in tensors.values())
    print(f"wrote {output}: family reference, {arguments.task}, {parameters / 1e6:.2f} M parameters")
    return 0


def _sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
