"""A small drawing board for the pictures of worlds, in NumPy alone."""

from __future__ import annotations

import math

import numpy as np

Color = tuple[int, int, int]

WHITE: Color = (255, 255, 255)
INK: Color = (38, 50, 56)
PALE: Color = (207, 216, 220)
BLUE: Color = (33, 113, 181)
GREEN: Color = (35, 139, 69)
ORANGE: Color = (217, 95, 14)
RED: Color = (203, 24, 29)

_FONT = {
    word[0]: [int(row) for row in word[1:]]
    for word in """
    A25755 B65656 C34443 D65556 E74647 F74644 G34553 H55755 I72227 J11152 K55655 L44447 M57755 N65555 O25552 P65644
    Q25573 R65655 S34216 T72222 U55557 V55552 W55775 X55255 Y55222 Z71247 075557 126227 271747 371717 455711 574717
    674757 771222 875757 975717 .00002 -00700 +02720 :02020 /11244 =07070
    """.split()
}
"""A glyph and its five rows, three pixels each, as octal digits; what is missing is drawn as a blank."""


class Canvas:
    """A picture with the origin at its top left, x to the right and y down, in pixels.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        background: Colour of the empty picture.

    Attributes:
        pixels: uint8 `[height, width, 3]`.
    """

    def __init__(self, width: int, height: int, background: Color = WHITE) -> None:
        self.pixels = np.full((height, width, 3), background, np.uint8)
        self._y, self._x = np.mgrid[:height, :width]

    def rectangle(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        """Fill the rectangle between two corners, given in any order; what lies outside the picture is cut off."""
        height, width = self.pixels.shape[:2]
        x0, x1 = (int(np.clip(round(x), 0, width)) for x in sorted((left, right)))
        y0, y1 = (int(np.clip(round(y), 0, height)) for y in sorted((top, bottom)))
        self.pixels[y0:y1, x0:x1] = color

    def disc(self, x: float, y: float, radius: float, color: Color) -> None:
        """Fill the disc around a point."""
        self.pixels[(self._x - x) ** 2 + (self._y - y) ** 2 <= radius**2] = color

    def ring(self, x: float, y: float, radius: float, color: Color, thickness: float = 1.5) -> None:
        """Draw the circle around a point."""
        distance = np.hypot(self._x - x, self._y - y)
        self.pixels[np.abs(distance - radius) <= thickness / 2] = color

    def line(self, x0: float, y0: float, x1: float, y1: float, color: Color, thickness: float = 2.0) -> None:
        """Draw the straight line between two points, with round ends."""
        along_x, along_y = x1 - x0, y1 - y0
        length = along_x**2 + along_y**2
        share = ((self._x - x0) * along_x + (self._y - y0) * along_y) / (length if length > 0.0 else 1.0)
        share = np.clip(share, 0.0, 1.0)
        distance = np.hypot(self._x - x0 - share * along_x, self._y - y0 - share * along_y)
        self.pixels[distance <= thickness / 2] = color

    def arrow(self, x0: float, y0: float, x1: float, y1: float, color: Color, thickness: float = 2.0) -> None:
        """Draw an arrow from one point to another; nothing where they are the same."""
        length = math.hypot(x1 - x0, y1 - y0)
        if length == 0.0:
            return
        self.line(x0, y0, x1, y1, color, thickness)
        back_x, back_y = (x0 - x1) / length, (y0 - y1) / length
        for side in (-0.6, 0.6):
            barb_x, barb_y = back_x - side * back_y, back_y + side * back_x
            self.line(x1, y1, x1 + 3.0 * thickness * barb_x, y1 + 3.0 * thickness * barb_y, color, thickness)

    def text(self, x: float, y: float, text: str, color: Color = INK, scale: int = 2) -> None:
        """Write one line with its top left at a point, in capitals of 3 x 5 pixels times `scale`."""
        for index, letter in enumerate(text.upper()):
            left = round(x) + 4 * scale * index
            for row, bits in enumerate(_FONT.get(letter, [0] * 5)):
                for column in range(3):
                    if bits >> (2 - column) & 1:
                        corner_x, corner_y = left + scale * column, round(y) + scale * row
                        self.rectangle(corner_x, corner_y, corner_x + scale, corner_y + scale, color)
