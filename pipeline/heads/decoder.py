"""The decoder of the reconstruction losses: from an activation back to the input image."""

import math

from torch import Tensor, nn
from torch.nn import functional

from greedypipe.pipeline.heads.head import MeanOverTokens
from greedypipe.pipeline.site import Site


def build_decoder(site: Site, activation_shape: tuple[int, ...]) -> nn.Module:
    """An activation of the block at `site`, [N, *activation_shape] -> image, signal or vector
    [N, *image_shape].

    Maps pass through 2 x 2 transposed convolutions of stride 2 that halve the channels, with batch normalisation and
    ReLU, and a final 1 x 1 convolution (AlonNT/Thesis). Where doubling does not reach the image's size exactly, bilinear
    interpolation follows before the last layer. Vectors, signals and averaged tokens pass through one linear layer.
    """
    if len(activation_shape) == len(site.task.image_shape) == 3:
        return MapDecoder(activation_shape, site.task.image_shape)
    return _linear_decoder(site, activation_shape)


def build_pixel_decoder(site: Site) -> nn.Module:
    """The output of the block at `site` -> logits of pixels in [0, 1], [N, *image_shape] (InfoPro, Wang et al., 2101.10832).

    Maps are interpolated to the image's size and pass through two 3 x 3 convolutions, of 12 channels and of the image's.
    Vectors, signals and averaged tokens pass through one linear layer.
    """
    shape, image_shape = site.shapes.output, site.task.image_shape
    if len(shape) != 3 or len(image_shape) != 3:
        return _linear_decoder(site, shape)
    return nn.Sequential(
        nn.Upsample(size=image_shape[1:], mode="bilinear", align_corners=True),
        nn.Conv2d(shape[0], 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, image_shape[0], 3, padding=1),
    )


def _linear_decoder(site: Site, shape: tuple[int, ...]) -> nn.Module:
    are_tokens = len(shape) == 2 and not site.is_signal
    pooling: list[nn.Module] = [MeanOverTokens()] if are_tokens else [nn.Flatten()] if len(shape) > 1 else []
    features = shape[-1] if are_tokens else math.prod(shape)
    image_shape = site.task.image_shape
    return nn.Sequential(*pooling, nn.Linear(features, math.prod(image_shape)), nn.Unflatten(1, image_shape))


class MapDecoder(nn.Module):
    """Decodes [N, C, h, w] to [N, *image_shape]."""

    def __init__(self, activation_shape: tuple[int, ...], image_shape: tuple[int, ...]) -> None:
        super().__init__()
        channels, size, _ = activation_shape
        steps: list[nn.Module] = []
        while size * 2 <= image_shape[1]:
            narrower = max(channels // 2, 1)
            steps += [nn.ConvTranspose2d(channels, narrower, 2, stride=2), nn.BatchNorm2d(narrower), nn.ReLU()]
            channels, size = narrower, size * 2
        self.upsampling = nn.Sequential(*steps)
        self.output = nn.Conv2d(channels, image_shape[0], 1)
        self._size = image_shape[1:]

    def forward(self, activation: Tensor) -> Tensor:
        x = self.upsampling(activation)
        if x.shape[2:] != self._size:
            x = functional.interpolate(x, self._size, mode="bilinear", align_corners=False)
        image: Tensor = self.output(x)
        return image
