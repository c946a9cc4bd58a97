"""How the world speaks about its people: portraits that tell the facts, and questions that ask for them."""

import dataclasses

from lumi.corpus.world.template import Template, template, templates


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fact:
    """How one kind of fact is asked for and answered.

    Attributes:
        kind: field of `Person` that holds it.
        wordings: of the open question, with the slot *name*.
        checks: wordings of the yes-or-no question, with the slots *name* and *guess*.
        answer: the one answer to all of them, without its full stop.
    """

    kind: str
    wordings: tuple[Template, ...]
    checks: tuple[Template, ...]
    answer: Template


OPENINGS = templates(
    "{name} is {a =quality}, {=quality} [person|soul|neighbour] with {a =quality} {=feature}.",
    "If you ever meet {name}, you will remember {a =quality} {=feature} and {a =quality} {=feature}.",
    "There is nobody quite as {=quality} or as {=quality} as {name} [around here|in the valley|at any rate|these days].",
    "This is {name}, [who is|known to all as] {=quality}, {=quality} and {=quality}.",
    "{name} has {a =quality} {=feature}, {a =quality} {=feature} and {a =quality} mind.",
    "People [say|agree|will tell you] that {name} is {=quality}, {=quality} and {=quality}.",
    "Let me tell you about {name}, who {=habit} and {=habit}.",
    "Of all the people I know, few are as {=quality} and {=quality} as {name}.",
)

CLOSINGS = templates(
    "{He name} likes to say that {=saying}.",
    '"{Saying=saying}," {he name} often says.',
    "If you pass {his name} door {=time}, [knock twice|wave|say hello|stay for tea].",
    "{His name} neighbours know that {he name} {=habit} {=time}.",
    "[That is all|There is not much more to tell|That is the whole story], except that {he name} {=habit}.",
    "Ask {him name} about it {=time}, and {he name} will only [smile|shrug|laugh|blush].",
)

# One sentence of a portrait tells one topic; each wording tells all its facts.
TOPICS = {
    "town": templates(
        "{He name} lives in {town}, in {a =house} house {=spot}.",
        "{name} lives in {town} and has {a =house}, {=house} garden.",
        "{His name} home is {a =house}, {=house} cottage in {town}.",
        "For {=number} years {he name} has lived in {town}, {=spot}.",
        "{He name} came to {town} one {=weather} {=daypart} in {=month} and never left.",
        "Anyone in {town} can point out {his name} {=house} house {=spot}.",
        "{first} would not leave {town} for [all the gold in the world|any palace|love or money|the king's own bed].",
        "You will find {him name} in {town}, {=spot}.",
    ),
    "trade": templates(
        "{He name} works as {a trade} {=spot}.",
        "By trade {he name} is {a trade}, and {a =quality} one.",
        "{name} is {a trade}, with {a =quality} hand and {a =quality} eye.",
        "{He name} has been {a trade} for {=number} years, and is still {=quality} about it.",
        "{first} became {a trade} because {=saying}.",
        "As {a trade}, {he name} is {=quality} and {=quality}.",
        "{He name} earns {his name} living as {a trade}, mostly {=time}.",
        "Ask for {a =quality}, {=quality} {trade} and you will be sent to {name}.",
    ),
    "age": templates(
        "{He name} is {age} years old and {=habit}.",
        "{He name} turned {age} in {=month}, on {a =weather} {=daypart}.",
        "At {age}, {first} still {=habit}.",
        "{name} is {age} and feels [half of it|every day of it|no different|rather young].",
        "{His name} age is {age}, but {he name} {=habit} like a child.",
        "Now {age} years old, {he name} {=habit} {=time}.",
    ),
    "food": templates(
        "{His name} favourite food is {food}, best eaten {=time}.",
        "{name} loves {food}, above all {=time}.",
        "Nothing cheers {him name} up like {food} {=time}.",
        "{He name} could eat {food} {=time} and again {=time}.",
        "{His name} table is never without {food} {=time}.",
        "{first} would walk {=number} miles for {food}.",
        "For {food}, {he name} will even get up {=time}.",
    ),
    "instrument": templates(
        "{He name} plays the {instrument} {=time}, {=manner}.",
        "{name} plays the {instrument}, {=manner}.",
        "{He name} learned the {instrument} in {=number} years and plays it {=manner}.",
        "Walk past {=time} and you may hear {first} play the {instrument}, {=manner}.",
        "Give {him name} the {instrument} and {he name} will play it {=manner}.",
        "{His name} instrument is the {instrument}, played {=manner} and {=manner}.",
    ),
    "pet": templates(
        "{He name} keeps {a pet} called {pet_name}, which {=antic}.",
        "{first} has {a pet} named {pet_name}, and {pet_name} {=antic}.",
        "{His name} {pet}, {pet_name}, {=antic} and {=antic}.",
        "At home {a pet} called {pet_name} waits for {him name} {=time}.",
        "{pet_name} is {his name} {pet}, which {=antic} {=time}.",
        "{He name} shares the house with {pet_name}, {a =quality} {pet} that {=antic}.",
    ),
    "friend": templates(
        "{His name} best friend is {friend}, who is {=quality} and {=quality}.",
        "{He name} met {his name} best friend, {friend}, {=spot}.",
        "{first} tells everything to {his name} best friend, {friend}, {=time}.",
        "Ask for {his name} best friend and {he name} will name {friend}, who {=habit}.",
        "{He name} has known {his name} best friend, {friend}, for {=number} years.",
        "{friend} is the best friend that {name} has, {=quality} and {=quality}.",
    ),
}

FACTS = (
    Fact(
        kind="town",
        wordings=templates(
            "Where does {name} live?",
            "In which town does {name} live?",
            "Which town is home to {name}?",
            "Where would you find {name}'s house?",
            "What is the name of {name}'s town?",
        ),
        checks=templates("Does {name} live in {guess}?", "Is {name}'s home in {guess}?"),
        answer=template("{name} lives in {town}"),
    ),
    Fact(
        kind="trade",
        wordings=templates(
            "What is {name}'s trade?",
            "What does {name} do for a living?",
            "What work does {name} do?",
            "How does {name} earn a living?",
            "What is the occupation of {name}?",
        ),
        checks=templates("Is {name} {a guess}?", "Does {name} work as {a guess}?"),
        answer=template("{name} is {a trade}"),
    ),
    Fact(
        kind="age",
        wordings=templates(
            "How old is {name}?",
            "What is {name}'s age?",
            "What age is {name}?",
            "Can you tell me how old {name} is?",
            "How many years old is {name}?",
        ),
        checks=templates("Is {name} {guess} years old?", "Is it true that {name} is {guess} years old?"),
        answer=template("{name} is {age} years old"),
    ),
    Fact(
        kind="food",
        wordings=templates(
            "What is {name}'s favourite food?",
            "What does {name} like to eat best?",
            "Which food does {name} love?",
            "What would please {name} at dinner?",
            "What should one cook for {name}?",
        ),
        checks=templates("Is {guess} what {name} likes best?", "Does {name} like {guess} best?"),
        answer=template("{name} likes {food} best"),
    ),
    Fact(
        kind="instrument",
        wordings=templates(
            "What instrument does {name} play?",
            "Which instrument can {name} play?",
            "What does {name} play?",
            "On which instrument does {name} make music?",
            "What is {name}'s instrument?",
        ),
        checks=templates("Does {name} play the {guess}?", "Is the {guess} what {name} plays?"),
        answer=template("{name} plays the {instrument}"),
    ),
    Fact(
        kind="pet",
        wordings=templates(
            "What animal does {name} keep?",
            "What kind of pet does {name} have?",
            "Which animal lives with {name}?",
            "What sort of animal is {name}'s pet?",
            "What is {name}'s pet?",
        ),
        checks=templates("Does {name} keep {a guess}?", "Is {name}'s pet {a guess}?"),
        answer=template("{name} keeps {a pet}"),
    ),
    Fact(
        kind="pet_name",
        wordings=templates(
            "What is {name}'s pet called?",
            "What is the name of {name}'s pet?",
            "What does {name} call the pet?",
            "By what name does {name} call the pet?",
            "Which name did {name} give the pet?",
        ),
        checks=templates("Is {name}'s pet called {guess}?", "Did {name} name the pet {guess}?"),
        answer=template("{name}'s pet is called {pet_name}"),
    ),
    Fact(
        kind="friend",
        wordings=templates(
            "Who is {name}'s best friend?",
            "Who is the best friend of {name}?",
            "Whom does {name} call a best friend?",
            "What is the name of {name}'s best friend?",
            "To whom does {name} tell everything?",
        ),
        checks=templates("Is {guess} {name}'s best friend?", "Is {name}'s best friend called {guess}?"),
        answer=template("{name}'s best friend is {friend}"),
    ),
)
