"""Closed sets of answers to questions about photos, and the words of captions that give each of them.

Synonyms give the same answer, as people who are asked word it differently. In the tables below "_" joins two words that stand
side by side, which go before one of them: a "dirt_bike" is no bike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Table = Mapping[str, tuple[str, ...]]
"""A word, or two with a space between them -> the answers that it gives; none where it only takes away another's meaning."""


def table(answers: Mapping[str, str]) -> Table:
    """The answers that each word gives, of the words for each answer; words for the answer "" give none.

    >>> table({"bike": "bike bicycle", "motorcycle": "dirt_bike"})
    {'bike': ('bike',), 'bicycle': ('bike',), 'dirt bike': ('motorcycle',)}
    """
    made: dict[str, tuple[str, ...]] = {}
    for answer, words in answers.items():
        for word in words.split():
            key = word.replace("_", " ")
            made[key] = (*made.get(key, ()), *([answer] if answer else []))
    return made


def given(words: Sequence[str], known: Table) -> dict[str, list[int]]:
    """Each answer that some words give, with the indices of the words that do.

    >>> given("a man on a dirt bike".split(), table({"bike": "bike", "motorcycle": "dirt_bike"}))
    {'motorcycle': [5]}
    """
    found: dict[str, list[int]] = {}
    at = 0
    while at < len(words):
        span = 2 if " ".join(words[at : at + 2]) in known and at + 1 < len(words) else 1
        for answer in known.get(" ".join(words[at : at + span]), ()):
            found.setdefault(answer, []).append(at + span - 1)
        at += span
    return found


COLORS = ("red", "blue", "green", "yellow", "white", "black", "brown", "orange", "pink", "purple", "gray")
SHADES = table(
    {color: color for color in COLORS}
    | {
        "gray": "gray grey silver",
        "brown": "brown tan golden beige blond blonde",
        "red": "red maroon",
        "blue": "blue navy",
    }
)
COLORED = [
    "dog",
    "shirt",
    "jacket",
    "coat",
    "dress",
    "pants",
    "shorts",
    "hat",
    "helmet",
    "ball",
    "car",
    "bike",
    "toy",
    "uniform",
    "outfit",
    "sweater",
    "swimsuit",
    "suit",
    "horse",
    "cap",
    "jersey",
    "top",
    "vest",
    "skirt",
    "collar",
    "boat",
    "truck",
    "kayak",
    "canoe",
    "sweatshirt",
    "frisbee",
    "slide",
    "umbrella",
    "hoodie",
    "costume",
    "trunks",
    "puppy",
    "bird",
]
"""Things whose color is asked for: photos show it, and people tell it."""

DEEDS = table(
    {
        "running": "run runs running ran jog jogs jogging race races racing chase chases chasing sprint sprints sprinting",
        "jumping": "jump jumps jumping jumped leap leaps leaping midair mid-air airborne hop hops hopping hurdle "
        "hurdles bounces",
        "swimming": "swim swims swimming paddle paddles paddling wade wades wading",
        "climbing": "climb climbs climbing climbed scale scales scaling climber climbers rappelling",
        "sitting": "sit sits sitting sat seated",
        "standing": "stand stands standing pose poses posing",
        "walking": "walk walks walking walked stroll strolls strolling hike hikes hiking hiker hikers",
        "lying down": "lay lays laying lie lies lying sleep sleeps sleeping rest rests resting asleep",
        "riding": "ride rides riding rider riders biker bikers cyclist cyclists bicyclist bicyclists motorcyclist "
        "motorcyclists biking cycling pedals",
        "skateboarding": "skateboard skateboards skateboarding skateboarder skateboarders",
        "snowboarding": "snowboard snowboards snowboarding snowboarder snowboarders",
        "skiing": "ski skis skiing skier skiers",
        "surfing": "surf surfs surfing surfer surfers surfboard",
        "swinging": "swing swings swinging",
        "sliding": "slide slides sliding sled sleds sledding",
        "playing": "play plays playing played",
        "eating": "eat eats eating chew chews chewing bite bites biting",
        "drinking": "drink drinks drinking",
        "dancing": "dance dances dancing dancer dancers",
        "fighting": "fight fights fighting wrestle wrestles wrestling",
        "catching": "catch catches catching fetch fetches fetching",
    }
)

SPORTS = table(
    {
        "soccer": "soccer",
        "football": "football rugby",
        "basketball": "basketball",
        "baseball": "baseball softball",
        "tennis": "tennis",
        "hockey": "hockey",
        "volleyball": "volleyball",
        "skateboarding": "skateboard skateboards skateboarding skateboarder skateboarders skateboarded",
        "snowboarding": "snowboard snowboards snowboarding snowboarder snowboarders",
        "skiing": "ski skis skiing skier skiers",
        "surfing": "surf surfs surfing surfer surfers surfboard surfboarder surfboarding",
        "wakeboarding": "wakeboard wakeboarding wakeboarder waterskiing water_skiing water_skis wakeboards parasailing",
        "cycling": "bike bikes bicycle bicycles biking biker bikers bicyclist bicyclists cyclist cyclists cycling bmx",
        "motocross": "motorcycle motorcycles motorcyclist motorcyclists motocross motorbike dirtbike dirt_bike "
        "dirt_biker dirt_bikes dirt_biking motor_bike motorcross atv",
        "climbing": "climber climbers rock_climbing rock_climber rock_climbs rock_climb climbing_gear rappelling "
        "rock_climbers climbs_rock climbing_rock climbing_rocks",
        "swimming": "swim swims swimming swimmer swimmers",
        "kayaking": "kayak kayaks kayaking kayaker kayakers canoe canoes canoeing rafting",
        "sledding": "sled sleds sledding snow_tubing",
        "skating": "skating rollerblades rollerblading rollerblader rollerblade ice_skating inline_skating skater "
        "roller_skates",
        "wrestling": "wrestle wrestles wrestling wrestlers karate judo martial boxing",
    }
)

MOUNTS = table(
    {
        "bike": "bike bikes bicycle bicycles biking biker bikers bicyclist bicyclists cyclist cyclists cycling bmx tricycle",
        "motorcycle": "motorcycle motorcycles motorcyclist motorcyclists motocross motorbike motorbikes dirtbike "
        "dirt_bike dirt_biker dirt_bikes motor_bike atv",
        "skateboard": "skateboard skateboards skateboarding skateboarder skateboarders",
        "snowboard": "snowboard snowboards snowboarding snowboarder snowboarders",
        "surfboard": "surf surfs surfing surfer surfers surfboard wakeboard wakeboarding wakeboarder bodyboard",
        "horse": "horse horses bull bronco pony",
        "sled": "sled sleds sledding",
        "scooter": "scooter scooters",
        "boat": "kayak kayaks kayaking kayaker canoe canoes boat raft rafting",
        "swing": "swing swings",
    }
)

PLACES = table(
    {
        "water": "water ocean sea lake river pool pond stream creek waves wave surf swimming",
        "beach": "beach sand sandy shore shoreline",
        "snow": "snow snowy snow-covered snowbank ski skis skiing skier snowboard snowboarder snowboarding",
        "grass": "grass grassy lawn field yard backyard meadow",
        "street": "street road sidewalk city crosswalk pavement streets downtown traffic",
        "forest": "forest woods wooded trees",
        "mountain": "mountain mountains cliff mountainside mountaintop",
        "rocks": "rock rocks rocky boulder boulders cliff",
        "indoors": "indoors indoor room couch bed kitchen sofa carpet restaurant gym subway bedroom living_room",
        "park": "park playground skatepark skate_park",
        "path": "path trail dirt mud muddy",
        "track": "track racetrack race_track",
        "stage": "stage",
        "": "trail_of water_bottle water_fountain sand_castle swimming_trunks rock_band parking snow_white trash_can",
    }
)

INSIDE = table(
    {
        "indoors": "indoors indoor room couch bed kitchen sofa carpet restaurant gym subway bedroom office mall "
        "living_room bathroom classroom inside hallway bar stage floor store",
        "outdoors": "outdoors outdoor outside street road grass grassy field snow snowy beach ocean lake river "
        "mountain mountains sky trees woods forest park yard lawn sidewalk hill water sand dirt rocks "
        "path playground track cliff",
    }
)

PEOPLE = table(
    {
        "man": "man guy gentleman",
        "woman": "woman lady",
        "boy": "boy",
        "girl": "girl",
        "child": "boy girl child kid toddler baby infant",
        "men": "men guys gentlemen",
        "women": "women ladies",
        "children": "children kids boys girls toddlers",
        "people": "people crowd group_of",
    }
)

ANIMALS = table(
    {
        "dog": "dog dogs puppy puppies retriever terrier greyhound greyhounds shepherd poodle collie labrador dalmatian",
        "horse": "horse horses pony bronco",
        "bird": "bird birds duck ducks pigeon pigeons seagull seagulls goose geese parrot swan eagle hawk flamingo",
        "cat": "cat cats kitten",
        "cow": "cow cows bull bulls cattle steer ox calf",
        "sheep": "sheep goat goats lamb",
        "": "hot_dog",
    }
)


def words_for() -> dict[str, set[str]]:
    """The words that give each answer, in any of the tables."""
    found: dict[str, set[str]] = {}
    for known in (SHADES, DEEDS, SPORTS, MOUNTS, PLACES, INSIDE, PEOPLE, ANIMALS):
        for word, answers in known.items():
            for answer in answers:
                found.setdefault(answer, set()).add(word)
    return found
