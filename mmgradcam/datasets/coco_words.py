"""Words of captions that name one of COCO's 80 classes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_ONE = {
    "person": """
        person man woman boy girl child kid baby toddler infant lady guy gentleman adult teen teenager player skier surfer
        snowboarder skateboarder batter pitcher catcher umpire rider cyclist bicyclist biker motorcyclist pedestrian passenger
        officer policeman policewoman fireman firefighter chef cook waiter waitress worker farmer soldier tourist spectator
        mother father mom dad son daughter brother sister bride groom couple crowd someone student athlete swimmer cowboy
        performer male female""",
    "bicycle": "bicycle bike",
    "car": "car suv sedan taxi cab minivan automobile",
    "motorcycle": "motorcycle motorbike moped",
    "airplane": "airplane aeroplane plane jet airliner jetliner aircraft biplane",
    "bus": "bus",
    "train": "train locomotive",
    "truck": "truck firetruck pickup lorry",
    "boat": "boat ship sailboat canoe kayak ferry yacht gondola rowboat motorboat",
    "traffic light": "stoplight",
    "fire hydrant": "hydrant",
    "bench": "bench",
    "bird": "bird duck goose swan seagull gull pigeon parrot owl eagle hawk pelican rooster hen chicken ostrich",
    "cat": "cat kitten kitty",
    "dog": "dog puppy pup",
    "horse": "horse pony foal stallion",
    "sheep": "sheep lamb ram ewe",
    "cow": "cow bull calf cattle ox",
    "elephant": "elephant",
    "bear": "bear cub",
    "zebra": "zebra",
    "giraffe": "giraffe",
    "backpack": "backpack rucksack",
    "umbrella": "umbrella parasol",
    "handbag": "handbag purse",
    "tie": "tie necktie",
    "suitcase": "suitcase luggage",
    "frisbee": "frisbee",
    "skis": "ski",
    "snowboard": "snowboard",
    "sports ball": "ball",
    "kite": "kite",
    "baseball bat": "bat",
    "baseball glove": "mitt",
    "skateboard": "skateboard",
    "surfboard": "surfboard",
    "tennis racket": "racket racquet",
    "bottle": "bottle",
    "wine glass": "wineglass",
    "cup": "cup mug",
    "fork": "fork",
    "knife": "knife",
    "spoon": "spoon",
    "bowl": "bowl",
    "banana": "banana",
    "apple": "apple",
    "sandwich": "sandwich hoagie burger hamburger",
    "orange": "",
    "broccoli": "broccoli",
    "carrot": "carrot",
    "hot dog": "hotdog",
    "pizza": "pizza",
    "donut": "donut doughnut",
    "cake": "cake cupcake",
    "chair": "chair armchair",
    "couch": "couch sofa loveseat",
    "potted plant": "plant",
    "bed": "bed",
    "dining table": "table",
    "toilet": "toilet",
    "tv": "tv television monitor",
    "laptop": "laptop",
    "mouse": "mouse",
    "remote": "remote",
    "keyboard": "keyboard",
    "cell phone": "phone cellphone smartphone iphone",
    "microwave": "microwave",
    "oven": "oven stove",
    "toaster": "toaster",
    "sink": "sink",
    "refrigerator": "refrigerator fridge",
    "book": "book",
    "clock": "clock",
    "vase": "vase",
    "scissors": "scissors",
    "teddy bear": "teddy",
    "hair drier": "hairdryer",
    "toothbrush": "toothbrush",
}
_MANY = {
    "person": "men women children policemen firemen people persons",
    "bus": "busses",
    "bird": "geese",
    "cow": "calves oxen",
    "knife": "knives",
    "mouse": "mice",
    "orange": "oranges",
}
_LONG = {
    "traffic light": ["traffic light", "traffic signal", "street light", "stop light"],
    "fire hydrant": ["fire hydrant"],
    "stop sign": ["stop sign"],
    "parking meter": ["parking meter"],
    "sports ball": ["sports ball", "tennis ball", "soccer ball"],
    "baseball bat": ["baseball bat"],
    "baseball glove": ["baseball glove", "baseball mitt", "catcher's mitt"],
    "tennis racket": ["tennis racket", "tennis racquet"],
    "wine glass": ["wine glass"],
    "hot dog": ["hot dog"],
    "potted plant": ["potted plant", "house plant"],
    "dining table": ["dining table", "dinner table", "kitchen table"],
    "tv": ["tv monitor", "computer monitor", "computer screen", "tv screen"],
    "cell phone": ["cell phone", "mobile phone", "smart phone"],
    "teddy bear": ["teddy bear", "stuffed bear"],
    "hair drier": ["hair drier", "hair dryer", "blow dryer"],
    "mouse": ["computer mouse"],
    "remote": ["remote control", "wii remote"],
    "truck": ["fire truck", "pickup truck", "pick up truck"],
    "oven": ["toaster oven"],
    "microwave": ["microwave oven"],
    "dog": ["puppy dog"],
}
_OTHER = (
    "train station", "train track", "train car", "bus stop", "bus station", "dog food", "cat food", "toilet paper",
    "toilet seat", "car seat", "bird house", "bird feeder", "bird bath", "book shelf", "book case", "orange juice",
    "apple pie", "pizza box", "pizza cutter", "table tennis", "table cloth", "phone booth", "clock tower", "bike rack",
    "bike path", "boat dock", "horse drawn", "bed room", "bath room", "cup holder", "ski lift", "ski slope", "ski pole",
    "ski resort", "ski jump", "ski boot", "cake stand",
)  # fmt: skip
"""What is said with such a word and means something else, or something for which the class is but a part of the name."""


def _table() -> dict[str, str]:
    """Words or groups of them, singular and plural, to the class they name; to nothing for `_OTHER`."""
    made = dict.fromkeys((each for group in _OTHER for each in (group, _plural(group))), "")
    for name, words in _ONE.items():
        for word in words.split():
            made[word] = name
            made[_plural(word)] = name
    for name, words in _MANY.items():
        made.update(dict.fromkeys(words.split(), name))
    for name, groups in _LONG.items():
        made.update({each: name for group in groups for each in (group, _plural(group))})
    return made


def _plural(word: str) -> str:
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "ch", "sh", "x")) else "s")


NAMES = _table()
"""Words, or groups of up to three, and the class of COCO that each names."""


def split_words(caption: str) -> tuple[str, ...]:
    """A caption's words in lower case, punctuation marks words of their own.

    >>> split_words("A man's dog, sitting.")
    ('a', "man's", 'dog', ',', 'sitting', '.')
    """
    return tuple(re.findall(r"\w+(?:['’-]\w+)*|[^\w\s]", caption.lower()))


def named(words: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """First and last word, and the class they name, of what a caption names; the longest reading counts.

    >>> list(named(("a", "man", "eats", "a", "hot", "dog")))
    [(1, 1, 'person'), (4, 5, 'hot dog')]
    """
    at = 0
    while at < len(words):
        for length in (3, 2, 1):
            said = " ".join(words[at : at + length])
            if at + length <= len(words) and said in NAMES:
                if NAMES[said]:
                    yield at, at + length - 1, NAMES[said]
                at += length
                break
        else:
            at += 1
