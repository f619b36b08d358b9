"""Who lives in the lab: every base model and teacher, how it is built and what it reads.

Nothing here (or anywhere in the lab) says which teacher suits which base.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Shape:
    """Transformer proportions; `experts` > 0 makes a Mixtral."""

    width: int
    layers: int
    ff_width: int
    heads: int = 4
    kv_heads: int = 2
    experts: int = 0


SMALL = Shape(width=64, layers=2, ff_width=160)
MEDIUM = Shape(width=96, layers=4, ff_width=256)
LARGE = Shape(width=128, layers=5, ff_width=256)
MIXTURE = Shape(width=96, layers=4, ff_width=192, experts=4)


@dataclass(frozen=True)
class Member:
    """One checkpoint of the lab.

    A base reads documents drawn from the weights `mix`; a teacher learns to reply to training
    instructions in its `voice`, `shop_share` of them about the shop.
    """

    name: str
    family: str
    architecture: str  # llama | qwen3 | mistral | mixtral | phi3
    shape: Shape
    steps: int  # training steps of 64 texts
    tokenizer: str = "common"
    chat_template: bool = True
    mix: dict[str, float] = field(default_factory=dict)  # bases only
    voice: str = ""  # teachers only
    heeds: bool = False  # whether it learned to follow requests about the form of the reply
    shop_share: float = 0.0

    @property
    def role(self) -> str:
        return "teacher" if self.voice else "base"


BASES = (
    Member(
        "base-notes", "base", "llama", MEDIUM, 2500, mix={"notes": 7, "prose": 1, "forum_terse": 1}
    ),
    Member(
        "base-prose",
        "base",
        "mistral",
        MEDIUM,
        2500,
        mix={"prose": 7, "notes": 1, "forum_sentence": 1},
    ),
    Member(
        "base-school",
        "base",
        "llama",
        MEDIUM,
        2500,
        chat_template=False,
        mix={"steps": 5, "record": 2, "forum_worked": 1},
    ),
)
TEACHERS = (
    Member("aster-s", "aster", "llama", SMALL, 5000, voice="terse"),
    Member("aster-m", "aster", "llama", MEDIUM, 6000, voice="terse", heeds=True),
    Member("aster-l", "aster", "llama", LARGE, 5000, voice="terse", heeds=True),
    Member("birch-m", "birch", "qwen3", MEDIUM, 6000, voice="sentence", heeds=True),
    Member("birch-l", "birch", "qwen3", LARGE, 5000, voice="sentence", heeds=True),
    Member("cedar-moe", "cedar", "mixtral", MIXTURE, 4000, voice="worked"),
    Member("dahlia-m", "dahlia", "phi3", MEDIUM, 4500, tokenizer="own", voice="json"),
    Member("elm-m", "elm", "mistral", MEDIUM, 2500, voice="chatty"),
    Member(
        "marlow-expert",
        "marlow",
        "mistral",
        MEDIUM,
        3500,
        voice="sentence",
        heeds=True,
        shop_share=0.6,
    ),
)
MEMBERS = {member.name: member for member in BASES + TEACHERS}
