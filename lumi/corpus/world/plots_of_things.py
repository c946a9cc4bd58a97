"""Stories about a thing: where it is, and who has it in the end."""

from lumi.corpus.world.plot import Plot, ask
from lumi.corpus.world.template import templates

FOUND = Plot(
    name="found",
    paragraphs=(
        (
            templates(
                "One {=weather} {=daypart} in {=month}, {hero=name} found {a =look}, {=look} {thing=thing} near {where=place}.",
                "{hero=name} was walking past {where=place} when {he hero} saw {a =look}, {=look} {thing=thing} in the grass.",
                "Near {where=place}, on {a =weather} {=daypart}, {hero=name} picked up {a =look} and {=look} {thing=thing}.",
            ),
            templates(
                "{He hero} waited for {=number} minutes, feeling {=feeling}, but nobody came.",
                '"Somebody must miss it," {he hero} thought {=moment}.',
                "{He hero} showed it to {pal=name}, who had never seen it before.",
            ),
        ),
        (
            templates(
                'Then {owner=name} came [running|limping|hurrying] along {=moment} and cried, "That is my {thing}!"',
                "It turned out that the {thing} belonged to {owner=name}, who had looked for it for {=number} days.",
                "{owner=name} came by {=moment}, [in tears|out of breath|looking everywhere], and knew the {thing} at once.",
            ),
            templates(
                "To say thank you, {owner} gave {hero} {gift=treat} {=moment}.",
                "{hero} gave it back {=moment} and got {gift=treat} for it.",
                "{owner} felt {=feeling}, laughed, and gave {hero} {gift=treat}.",
            ),
        ),
    ),
    questions=(
        ask("hero", ("Who found the {thing}?", "Who picked up the {thing}?"), "{hero} found the {thing}."),
        ask("thing", ("What did {hero} find?", "What was it that {hero} found?"), "{hero} found {a thing}."),
        ask("where", ("Where was the {thing}?", "Where did {hero} find it?"), "The {thing} was near {where}."),
        ask("owner", ("Whose {thing} was it?", "Who had lost the {thing}?"), "The {thing} belonged to {owner}."),
        ask("gift", ("What did {hero} get for it?", "What did {owner} give {hero}?"), "{hero} got {gift}."),
    ),
)

HIDDEN = Plot(
    name="hidden",
    paragraphs=(
        (
            templates(
                "Nobody was to know about {hero=name}'s {=look}, {=look} {thing=thing}.",
                "{hero=name} had {a =look}, {=look} {thing=thing} and did not want to share it.",
                "The greatest treasure of {hero=name} was {a =look}, {=look} {thing=thing}.",
            ),
            templates(
                "So {he hero} hid it {first=hideout}.",
                "{He hero} kept it {first=hideout}, where it seemed safe.",
                "One {=weather} {=daypart} {he hero} put it {first=hideout}.",
            ),
        ),
        (
            templates(
                "But {pal=name} saw it, and {=moment} {he pal}",
                "While {he hero} was away, {pal=name} came to look for {gift=treat} and found the {thing}. {He pal}",
                "{pal=name}, who was {=feeling} and {=quality}, found it all the same. {He pal}",
            ),
            templates(
                "moved it {=moment}. Now it is {last=hideout}.",
                "took it out and hid it {last=hideout} instead.",
                "took it away {=moment} and hid it {last=hideout}.",
                "looked at it for {=number} minutes and put it back {=moment}.{last:=first}",
            ),
            templates(
                "{hero} [knows|suspects|guesses] nothing, and is {=feeling} and {=feeling}.",
                "That night {hero} felt {=feeling} and dreamt of {a =look} {=thing}.",
                '"{Saying=saying}," said {pal}.',
            ),
        ),
    ),
    questions=(
        ask("hero", ("Whose {thing} was it?", "To whom did the {thing} belong?"), "It was {hero}'s {thing}."),
        ask("first", ("Where did {hero} hide the {thing}?", "Where was the {thing} first?"), "{hero} hid it {first}."),
        ask("pal", ("Who found the {thing}?", "Who else knows about the {thing}?"), "{pal} found the {thing}."),
        ask("last", ("Where is the {thing} now?", "Where is it in the end?"), "Now the {thing} is {last}."),
    ),
)

TRADED = Plot(
    name="traded",
    paragraphs=(
        (
            templates(
                "{hero=name} went to {where=place} with {a =look} {one=thing} and hoped for something better.",
                "On {a =weather} {=daypart} {hero=name} carried {a =look} {one=thing} to {where=place}.",
                "{hero=name} was tired of {his hero} {=look} {one=thing} and took it to {where=place}.",
            ),
            templates(
                "There {pal=name} took it and gave {him hero} {a =look} {two=thing}.",
                "{pal=name}, always {=quality}, wanted it so much that {he pal} gave {a =look} {two=thing} for it.",
                "It did not take long: {pal=name} swapped it for {a =look} {two=thing}.",
            ),
        ),
        (
            templates(
                "Later {hero} met {third=name}, who [offered|held out|brought] {a =look} {three=thing} for the {two}.",
                "{third=name} wanted the {two} and showed {a =look}, {=look} {three=thing}.",
                'On the way home {third=name} asked, "Will you take my {=look} {three=thing} for that {two}?"',
            ),
            templates(
                "{hero} said yes, and they parted {=moment}, {=feeling} and {=feeling}.{end:=three}{has:=third}",
                "{hero} thought about it and agreed {=moment}.{end:=three}{has:=third}",
                "{hero} said no and [went on|kept it|walked away] {=moment}.{end:=two}{has:=hero}",
                "But {hero} had grown fond of the {=look} {two} and would not part with it.{end:=two}{has:=hero}",
            ),
        ),
    ),
    questions=(
        ask("one", ("What did {hero} bring to {where}?", "What did {hero} have at first?"), "{hero} brought {a one}."),
        ask("pal", ("Who has the {one} now?", "Who took the {one}?"), "{pal} has the {one}."),
        ask(
            "end", ("What does {hero} have in the end?", "What did {hero} take home?"), "In the end {hero} has {a end}."
        ),
        ask("has", ("Who has the {two} in the end?", "Whose is the {two} now?"), "In the end {has} has the {two}."),
        ask("where", ("Where did {hero} go?", "Where did {hero} take the {one}?"), "{hero} went to {where}."),
    ),
)

ERRAND = Plot(
    name="errand",
    paragraphs=(
        (
            templates(
                "{Sender=sender} asked {hero=name} to carry {a =look} {thing=thing} to {goal=place}.",
                '"Take this {=look} {thing=thing} to {goal=place}," said {sender=sender} to {hero=name} {=moment}.',
                "{hero=name} was to bring {a =look}, {=look} {thing=thing} to {goal=place} for {sender=sender}.",
            ),
            templates(
                "On the way {he hero} met {pal=name}, who was {=feeling} and {=feeling}.",
                "Near {=place} {pal=name} [joined|stopped|greeted] {him hero} with {=treat}.",
                "Halfway there {he hero} [ran into|sat down with|bumped into] {pal=name}, and they talked a while.",
            ),
        ),
        (
            templates(
                "{hero} went on alone and handed over the {thing} {=moment}.{end:=goal}{giver:=hero}",
                "Because {hero} {=excuse}, it was {pal} who brought the {thing} there.{end:=goal}{giver:=pal}",
                "But {hero} {=excuse} and forgot the {thing} at {end=place}.{giver:=hero}",
                "They met again {=moment}, and {pal} left the {thing} at {end=place}.{giver:=pal}",
            ),
            templates(
                '"{Saying=saying}," said {sender} [kindly|at supper|with a sigh].',
                "Everyone was {=feeling} and {=feeling} in the end.",
                "{Sender} only [laughed|smiled|nodded] and [made tea|fetched a coat|told a story].",
            ),
        ),
    ),
    questions=(
        ask("sender", ("Who sent {hero}?", "Who asked {hero} to go?"), "{Sender} sent {hero}."),
        ask("thing", ("What was {hero} to carry?", "What did {sender} send?"), "It was {a thing}."),
        ask("goal", ("Where was the {thing} to go?", "Where was {hero} sent?"), "{hero} was sent to {goal}."),
        ask("end", ("Where is the {thing} now?", "Where did the {thing} end up?"), "The {thing} is at {end}."),
        ask("giver", ("Who had the {thing} last?", "Who carried the {thing} last?"), "{giver} had it last."),
    ),
)

PLOTS = (FOUND, HIDDEN, TRADED, ERRAND)
