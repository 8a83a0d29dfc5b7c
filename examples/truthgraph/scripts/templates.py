"""Pairs of sentences with a known relation, made from templates: what train_head.py learns from.

A frame has sentences that say one thing, sentences that deny it, and sentences on the same subject that neither follow
nor conflict. Its slots are filled from lists; `exclusive` slots are those of which only one value can be true.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

PLACES = ("Paris", "Nairobi", "Lima", "Oslo", "Hanoi", "Quito", "Cairo", "Ottawa", "Accra", "Riga", "Lisbon", "Kyoto")
COUNTRIES = ("France", "Kenya", "Peru", "Norway", "Vietnam", "Ecuador", "Egypt", "Canada", "Ghana", "Latvia")
PEOPLE = ("Maria Lopez", "John Okafor", "Anna Schmidt", "Wei Chen", "Fatima Khan", "Erik Larsen", "Sofia Rossi")
FIRMS = ("Northwind", "Acme", "Globex", "Initech", "Umbrella Foods", "Stark Motors", "Blue Sun", "Hooli")
YEARS = tuple(str(year) for year in range(1950, 2025, 3))
NUMBERS = ("3", "7", "12", "25", "40", "90", "150", "300", "700", "1200", "5000", "20000")
FOODS = ("coffee", "green tea", "olive oil", "dark chocolate", "garlic", "red wine", "rice", "honey", "milk", "salmon")
ANIMALS = ("dolphins", "bats", "spiders", "penguins", "octopuses", "bees", "sharks", "elephants", "frogs", "crows")
GROUPS = ("mammals", "insects", "birds", "fish", "reptiles", "amphibians", "molluscs")
MATERIALS = ("rock", "ice", "iron", "gas", "sand", "cheese", "glass", "salt", "dust", "gold")
BODIES = ("the Moon", "Mars", "Saturn", "the comet", "Europa", "Pluto", "the asteroid", "Venus")
DISEASES = ("asthma", "diabetes", "heart disease", "migraine", "the flu", "depression", "arthritis", "measles")
THINGS = ("bridge", "tower", "tunnel", "dam", "stadium", "wall", "railway", "canal", "museum", "harbour")


@dataclass(frozen=True)
class Frame:
    """One thing that can be said."""

    name: str
    slots: dict[str, tuple[str, ...]]
    says: tuple[str, ...]
    denies: tuple[str, ...]
    beside: tuple[str, ...]
    exclusive: tuple[str, ...] = ()
    """Slots of which one value rules out the others: Paris or Lima is the capital."""
    subject: tuple[str, ...] = field(default=())
    """Slots that, changed, make the sentence one about something else."""


@dataclass(frozen=True)
class LabelledPair:
    """A premise, a hypothesis, their relation, and the frame that they came from."""

    premise: str
    hypothesis: str
    label: str
    frame: str


FRAMES = (
    Frame(
        "capital",
        {"place": PLACES, "country": COUNTRIES},
        (
            "{place} is the capital of {country}.",
            "The capital of {country} is {place}.",
            "{country}'s capital city is {place}.",
        ),
        ("{place} is not the capital of {country}.", "The capital of {country} is not {place}."),
        (
            "{place} has many old churches.",
            "{country} exports machines and fruit.",
            "Many tourists visit {country} each year.",
        ),
        exclusive=("place",),
        subject=("country",),
    ),
    Frame(
        "founded",
        {"firm": FIRMS, "year": YEARS, "person": PEOPLE},
        ("{firm} was founded by {person}.", "{person} founded {firm}.", "{person} is the founder of {firm}."),
        ("{firm} was not founded by {person}.", "{person} did not found {firm}.", "{person} never founded {firm}."),
        ("{firm} sells its products abroad.", "{person} likes to sail.", "{firm} opened an office in {year}."),
        exclusive=("person",),
        subject=("firm",),
    ),
    Frame(
        "founding year",
        {"firm": FIRMS, "year": YEARS},
        ("{firm} was founded in {year}.", "The company {firm} started in {year}.", "{firm} has existed since {year}."),
        ("{firm} was not founded in {year}.", "The company {firm} did not start in {year}."),
        ("{firm} makes a profit.", "{firm} has its own canteen.", "The chairman of {firm} resigned."),
        exclusive=("year",),
        subject=("firm",),
    ),
    Frame(
        "length",
        {"thing": THINGS, "place": PLACES, "number": NUMBERS},
        ("The {thing} in {place} is {number} metres long.", "{place}'s {thing} has a length of {number} metres."),
        ("The {thing} in {place} is not {number} metres long.", "{place}'s {thing} is shorter than {number} metres."),
        ("The {thing} in {place} was painted green.", "{place}'s {thing} is closed on Mondays."),
        exclusive=("number",),
        subject=("place", "thing"),
    ),
    Frame(
        "health",
        {"food": FOODS, "disease": DISEASES},
        (
            "{food} prevents {disease}.",
            "Eating {food} protects against {disease}.",
            "{food} lowers the risk of {disease}.",
        ),
        (
            "{food} does not prevent {disease}.",
            "{food} has no effect on {disease}.",
            "{food} causes {disease}.",
            "{food} increases the risk of {disease}.",
        ),
        ("{food} has become more expensive.", "{disease} is studied at many universities.", "{food} is sold in shops."),
        subject=("food", "disease"),
    ),
    Frame(
        "treatment",
        {"disease": DISEASES, "food": FOODS},
        ("Vaccines are safe for people with {disease}.", "People with {disease} can be vaccinated safely."),
        ("Vaccines are dangerous for people with {disease}.", "It is not safe to vaccinate people with {disease}."),
        ("Doctors have known {disease} for centuries.", "{disease} is more common in cities."),
        subject=("disease",),
    ),
    Frame(
        "kind",
        {"animal": ANIMALS, "group": GROUPS},
        ("{animal} are {group}.", "{animal} belong to the {group}.", "Biologists count {animal} among the {group}."),
        ("{animal} are not {group}.", "{animal} do not belong to the {group}."),
        ("{animal} are kept in zoos.", "Children like books about {animal}.", "{animal} can live in many places."),
        exclusive=("group",),
        subject=("animal",),
    ),
    Frame(
        "made of",
        {"body": BODIES, "material": MATERIALS},
        ("{body} is made of {material}.", "{body} consists of {material}.", "The surface of {body} is {material}."),
        (
            "{body} is not made of {material}.",
            "{body} does not consist of {material}.",
            "There is no {material} on {body}.",
        ),
        ("{body} was photographed by a probe.", "{body} can be seen from Earth.", "Astronomers observe {body}."),
        exclusive=("material",),
        subject=("body",),
    ),
    Frame(
        "trend",
        {"place": PLACES, "year": YEARS},
        (
            "Unemployment in {place} rose in {year}.",
            "In {year} unemployment in {place} increased.",
            "More people in {place} were without work in {year}.",
        ),
        (
            "Unemployment in {place} fell in {year}.",
            "In {year} unemployment in {place} decreased.",
            "Fewer people in {place} were without work in {year}.",
        ),
        (
            "{place} built a new library in {year}.",
            "The mayor of {place} spoke in {year}.",
            "Rents in {place} changed in {year}.",
        ),
        subject=("place",),
    ),
    Frame(
        "temperature",
        {"place": PLACES, "year": YEARS},
        ("{year} was hotter than usual in {place}.", "In {place} temperatures were above average in {year}."),
        ("{year} was colder than usual in {place}.", "In {place} temperatures were below average in {year}."),
        ("{place} has a weather station.", "It is often windy in {place}.", "{place} hosted a conference in {year}."),
        subject=("place",),
    ),
    Frame(
        "boiling",
        {"liquid": ("water", "alcohol", "mercury", "oil", "acetone"), "number": NUMBERS},
        ("{liquid} boils at {number} degrees.", "The boiling point of {liquid} is {number} degrees."),
        ("{liquid} does not boil at {number} degrees.", "The boiling point of {liquid} is not {number} degrees."),
        ("{liquid} is stored in barrels.", "{liquid} is used in industry.", "Chemists measure {liquid} in litres."),
        exclusive=("number",),
        subject=("liquid",),
    ),
    Frame(
        "won",
        {"person": PEOPLE, "year": YEARS},
        (
            "{person} won the election in {year}.",
            "The election of {year} was won by {person}.",
            "{person} was elected in {year}.",
        ),
        (
            "{person} lost the election in {year}.",
            "{person} did not win the election of {year}.",
            "{person} was defeated in {year}.",
        ),
        ("{person} wrote a book.", "The election of {year} was held in May.", "{person} studied law."),
        exclusive=("person",),
        subject=("year",),
    ),
    Frame(
        "open",
        {"thing": THINGS, "place": PLACES},
        ("The {thing} in {place} is open to the public.", "Everybody may visit the {thing} in {place}."),
        ("The {thing} in {place} is closed to the public.", "Nobody may visit the {thing} in {place}."),
        ("The {thing} in {place} was built by engineers.", "A film was made about the {thing} in {place}."),
        subject=("place", "thing"),
    ),
    Frame(
        "cause",
        {"thing": ("smoking", "air pollution", "stress", "lack of sleep", "noise"), "disease": DISEASES},
        ("{thing} causes {disease}.", "{disease} is caused by {thing}.", "{thing} leads to {disease}."),
        (
            "{thing} does not cause {disease}.",
            "{disease} is not caused by {thing}.",
            "There is no link between {thing} and {disease}.",
        ),
        (
            "Many people talk about {thing}.",
            "Newspapers write about {disease}.",
            "Laws about {thing} differ by country.",
        ),
        subject=("disease", "thing"),
    ),
)


def pairs(each: int, seed: int = 0) -> Iterator[LabelledPair]:
    """For every frame `each` pairs of each label."""
    chance = random.Random(seed)
    for frame in FRAMES:
        for label, make in (("entailment", _entailed), ("neutral", _neutral), ("contradiction", _contradicted)):
            for _ in range(each):
                premise, hypothesis = make(frame, chance)
                yield LabelledPair(_sentence(premise), _sentence(hypothesis), label, frame.name)


def _entailed(frame: Frame, chance: random.Random) -> tuple[str, str]:
    values = _values(frame, chance)
    said = chance.choice((frame.says, frame.says, frame.denies[:2]))
    premise, hypothesis = chance.choice(said), chance.choice(said)
    return premise.format(**values), hypothesis.format(**values)


def _contradicted(frame: Frame, chance: random.Random) -> tuple[str, str]:
    values = _values(frame, chance)
    if frame.exclusive and chance.random() < 0.5:
        other = _changed(frame, values, frame.exclusive, chance)
        return chance.choice(frame.says).format(**values), chance.choice(frame.says).format(**other)
    both = [chance.choice(frame.says).format(**values), chance.choice(frame.denies).format(**values)]
    chance.shuffle(both)
    return both[0], both[1]


def _neutral(frame: Frame, chance: random.Random) -> tuple[str, str]:
    values = _values(frame, chance)
    said = chance.choice(frame.says + frame.denies).format(**values)
    way = chance.random()
    if way < 0.5:
        both = [said, chance.choice(frame.beside).format(**values)]
    elif way < 0.75:
        other = _changed(frame, values, frame.subject, chance)
        both = [said, chance.choice(frame.says + frame.denies).format(**other)]
    else:
        stranger = chance.choice([one for one in FRAMES if one is not frame])
        both = [said, chance.choice(stranger.says + stranger.denies).format(**_values(stranger, chance))]
    chance.shuffle(both)
    return both[0], both[1]


def _values(frame: Frame, chance: random.Random) -> dict[str, str]:
    return {slot: chance.choice(choices) for slot, choices in frame.slots.items()}


def _changed(frame: Frame, values: dict[str, str], slots: tuple[str, ...], chance: random.Random) -> dict[str, str]:
    slot = chance.choice(slots)
    return {**values, slot: chance.choice([value for value in frame.slots[slot] if value != values[slot]])}


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
