"""A face in an image: where it is, how it looks at us, how good it is."""

from dataclasses import dataclass, field
from enum import Enum

from domain.embedding import Embedding
from domain.quality import Pose, Quality


@dataclass(frozen=True, slots=True)
class Point:
    """Pixels of the upright image: x to the right, y down, (0, 0) the outer corner of the first pixel."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels of the upright image; `right` and `bottom` lie outside. Always clipped to the image."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Pixels, never negative."""
        return max(0.0, self.right - self.left)

    @property
    def height(self) -> float:
        """Pixels, never negative."""
        return max(0.0, self.bottom - self.top)

    @property
    def area(self) -> float:
        """Square pixels of what is visible: what *the largest face* means."""
        return self.width * self.height

    def clipped(self, *, width: float, height: float) -> "Box":
        """Return the part that lies inside an image of this size."""
        return Box(
            min(max(self.left, 0.0), width),
            min(max(self.top, 0.0), height),
            min(max(self.right, 0.0), width),
            min(max(self.bottom, 0.0), height),
        )


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Five points; left and right as seen in the image."""

    left_eye: Point
    right_eye: Point
    nose: Point
    left_mouth: Point
    right_mouth: Point

    def points(self) -> tuple[Point, Point, Point, Point, Point]:
        """In the order that alignment templates use."""
        return (self.left_eye, self.right_eye, self.nose, self.left_mouth, self.right_mouth)


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One detected face."""

    box: Box
    landmarks: Landmarks
    confidence: float
    """The detector's, in 0..1."""
    pose: Pose
    quality: Quality
    embedding: Embedding | None = field(default=None)
    """None where it was not asked for."""


class Embed(Enum):
    """Which of the faces found get an embedding: each costs as much as finding them all."""

    NONE = "none"
    LARGEST = "largest"
    ONLY = "only"
    """The one face where there is exactly one; none where there are several."""
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """What is seen in one image."""

    width: int
    height: int
    """Pixels of the upright image, EXIF orientation applied."""
    faces: tuple[Face, ...]
    """Largest visible area first; ties by confidence, then from left to right."""

    @property
    def largest(self) -> Face | None:
        """The face with the largest visible area, None where there is no face."""
        return self.faces[0] if self.faces else None

    @property
    def central(self) -> Face | None:
        """The face that a labelled photograph is of: the largest that holds the central pixel, else the largest.

        The rule of Labelled Faces in the Wild for photographs of several people (Huang et al., University of
        Massachusetts, Technical Report 07-49, 2007). For measuring alone: a probe is the largest face.
        """
        x, y = self.width / 2, self.height / 2
        holding = (
            face for face in self.faces if face.box.left <= x < face.box.right and face.box.top <= y < face.box.bottom
        )
        return next(holding, self.largest)
