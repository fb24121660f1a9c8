"""``image_hash``: perceptual hashes of the pool's images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from pycurate.errors import RecipeError
from pycurate.kernels.phash import HashBits, HashKind
from pycurate.pipeline.step import Needs
from pycurate.steps.base import RecipeStep, as_field
from pycurate.types import Block, ScoreArray

if TYPE_CHECKING:
    from pycurate.io.pool import Pool


class HashingStep(RecipeStep):
    """What the steps that hash images share.

    Attributes
    ----------
    hash
        ``phash`` (default), a hash of the DCT, or ``dhash``, one of differences (``pycurate.reference.phash``).
    bits
        64 (default) or 256.
    dihedral
        True: images that are turned or mirrored have the same hash.
    """

    python_bound: ClassVar[bool] = True  # a fifth of the time is Pillow's Python; worker processes share none of it

    hash: HashKind = Field(default="phash")
    bits: HashBits = 64
    dihedral: bool = False

    @property
    def hash_column(self) -> str:
        """The score column of hashes."""
        return f"{self.title}.hash"

    @property
    def flags_column(self) -> str:
        """The score column that says why rows have no hash."""
        return f"{self.title}.flags"

    def score_needs(self) -> Needs:
        return Needs(images=True)

    def check_pool(self, pool: Pool) -> None:
        if not pool.has_images:
            raise RecipeError(
                f"step {self.title!r}: expected a pool with images, got one of layout {pool.layout} without; open the "
                "folder that img2dataset wrote, a datacomp pool with a column uid and its tars below one folder, or a "
                "folder of image files"
            )

    def produces(self) -> tuple[str, ...]:
        return self.hash_column, self.flags_column

    def score_parameters(self) -> dict[str, Any]:
        return {"hash": self.hash, "bits": self.bits, "dihedral": self.dihedral}

    def score(self, block: Block) -> dict[str, ScoreArray]:
        from pycurate.ops.dedup.perceptual import hash_texts, perceptual_hashes

        assert block.images is not None
        hashes = perceptual_hashes(block.images, self.hash, self.bits, dihedral=self.dihedral, threads=1)
        return {self.hash_column: hash_texts(hashes), self.flags_column: hashes.flags}


class ImageHash(HashingStep):
    """A perceptual hash of each image, read from the pool's tars or image files.

    Makes the score columns ``<as>``, hex digits of which the first stands for the first four bits (empty where there is
    no hash), and ``<as>.flags``, uint8, which says why (``pycurate.ops.dedup.perceptual.UNJUDGED_REASONS``). No image
    that is missing, damaged or blank stops a run.

    Attributes
    ----------
    as_
        Name of the score column (YAML key ``as``); the step's name by default.
    """

    kind: ClassVar[str] = "image_hash"
    shorthand: ClassVar[str] = "hash"

    as_: str = as_field()

    @property
    def hash_column(self) -> str:
        return self.as_ or self.title

    @property
    def flags_column(self) -> str:
        return f"{self.hash_column}.flags"
