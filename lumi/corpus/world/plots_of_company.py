"""Stories about company: who did what, and who was right, first, or kind."""

from lumi.corpus.world.plot import Plot, ask
from lumi.corpus.world.template import templates

RACED = Plot(
    name="raced",
    paragraphs=(
        (
            templates(
                "{one=name}, {two=name} and {three=name} raced from {start=place} to {goal=place}.",
                "One {=weather} {=daypart} {one=name}, {two=name} and {three=name} ran from {start=place} to {goal=place}.",
                '"First to {goal=place}!" cried {one=name}. Off went {two=name} and {three=name} too, from {start=place}.',
            ),
        ),
        (
            templates(
                "{one} {=excuse} and came last,{last:=one} and [{two}{win:=two}|{three}{win:=three}] won.",
                "{two} {=excuse} and came last,{last:=two} and [{one}{win:=one}|{three}{win:=three}] won.",
                "{three} {=excuse} and came last,{last:=three} and [{one}{win:=one}|{two}{win:=two}] won.",
            ),
            templates(
                "The prize was {prize=treat}, [fresh from|left over from|bought at|borrowed from] {=place}.",
                "For that {he win} was given {prize=treat}, and everybody felt {=feeling}.",
                "{He win} got {prize=treat} and ate it {=moment}.",
            ),
        ),
    ),
    questions=(
        ask("win", ("Who won?", "Who was the fastest?", "Who got {prize}?"), "{win} won the race."),
        ask("last", ("Who came last?", "Who was the slowest?"), "{last} came last."),
        ask("prize", ("What was the prize?", "What did {win} get?"), "The prize was {prize}."),
        ask("start", ("Where did they start?", "Where did the race begin?"), "They started from {start}."),
        ask("goal", ("Where did they run to?", "Where did the race end?"), "They ran to {goal}."),
    ),
)

RESCUED = Plot(
    name="rescued",
    paragraphs=(
        (
            templates(
                "{A =weather} {=daypart} it was when {hero=name} heard {a =quality} {animal=animal} cry near {where=place}.",
                "Near {where=place}, {hero=name} came upon {a =quality}, {=quality} {animal=animal} with a sore foot.",
                "{hero=name} was on the way to {where=place} when {a =quality} {animal=animal} limped across the road.",
            ),
            templates(
                "{He hero} called {pal=name}, who brought {a =look} {thing=thing} and {snack=treat}.",
                "{pal=name} came to help {=moment} with {a =look} {thing=thing} and {snack=treat}.",
                "Together with {pal=name}, {a =look} {thing=thing} and {snack=treat}, {he hero} set to work.",
            ),
        ),
        (
            templates(
                "After {=number} [days|hours|nights] the {animal} was well again and [danced|sang|jumped] for joy.",
                "The {animal} ate everything and was soon {=feeling} and {=feeling}.",
                '"{Saying=saying}," said {pal}, and the {animal} seemed to agree.',
            ),
            templates(
                "It went home with {hero} {=moment}.{home:=hero}",
                "Now it lives with {hero} and {=antic}.{home:=hero}",
                "{pal} took it home {=moment}.{home:=pal}",
                "It followed {pal} home, where it {=antic}.{home:=pal}",
            ),
        ),
    ),
    questions=(
        ask("animal", ("What animal was it?", "Which animal needed help?"), "It was {a animal}."),
        ask("hero", ("Who met the {animal} first?", "Who called for help?"), "{hero} met the {animal} first."),
        ask("pal", ("Who brought the {thing}?", "Who came to help?"), "{pal} came with the {thing}."),
        ask(
            "thing", ("What did {pal} bring besides {snack}?", "What else did {pal} have?"), "{pal} brought {a thing}."
        ),
        ask("home", ("Who took the {animal} home?", "With whom is the {animal} now?"), "The {animal} is with {home}."),
    ),
)

GUESSED = Plot(
    name="guessed",
    paragraphs=(
        (
            templates(
                "{A =look} box stood near {where=place}, and nobody knew what was in it.",
                "One {=weather} {=daypart}, {sender=sender} put {a =look} box down near {where=place}.",
                "Near {where=place} there was {a =look}, {=look} box with a lid.",
            ),
            templates(
                "{one=name} guessed {a x=thing}, {two=name} guessed {a y=thing}, and {three=name} guessed {a z=thing}.",
                '"{A x=thing}," said {one=name}. "{A y=thing}," said {two=name}. "{A z=thing}," said {three=name}.',
                "{one=name} hoped for {a x=thing}, {two=name} for {a y=thing} and {three=name} for {a z=thing}.",
            ),
        ),
        (
            templates(
                "They waited {=number} minutes.",
                "They lifted the lid {=moment}.",
                '"{Saying=saying}," said {one}, and opened it.',
            ),
            templates(
                "In it was the {x}, {=look} and {=look}.{truth:=x}{win:=one}",
                "In it was the {y}, {=look} and {=look}.{truth:=y}{win:=two}",
                "In it was the {z}, {=look} and {=look}.{truth:=z}{win:=three}",
            ),
            templates(
                "The winner got {=treat} {=moment}.",
                "Everyone felt {=feeling} and had {=treat}.",
                "It was wrapped in {a =look}, {=look} cloth.",
            ),
        ),
    ),
    questions=(
        ask("truth", ("What was in the box?", "What did they find in the box?"), "There was {a truth} in the box."),
        ask("win", ("Who was right?", "Who guessed it?"), "{win} was right."),
        ask("one", ("Who thought of {a x}?", "Who said {a x}?"), "{one} thought of {a x}.", "guess_one"),
        ask("y", ("What did {two} guess?", "What did {two} think of?"), "{two} thought of {a y}.", "guess_two"),
        ask("three", ("Who thought of {a z}?", "Who said {a z}?"), "{three} thought of {a z}.", "guess_three"),
    ),
)

COOKED = Plot(
    name="cooked",
    paragraphs=(
        (
            templates(
                "{one=name}, {two=name} and {three=name} made soup {=moment}, {=spot}.",
                "For supper near {where=place}, {one=name}, {two=name} and {three=name} cooked {a =quality} soup.",
                '"Let us make soup!" said {one=name} to {two=name} and {three=name} one {=weather} {=daypart}.',
            ),
            templates(
                "{one} brought {x=ingredient}, {two} brought {y=ingredient}, and {three} had {z=ingredient}.",
                "{three} came with {z=ingredient}, {two} with {y=ingredient} and {one} with {x=ingredient}.",
                "Into the pot went {y=ingredient} from {two}, {x=ingredient} from {one} and {z=ingredient} from {three}.",
            ),
        ),
        (
            templates(
                "[{one}{cook:=one}|{two}{cook:=two}|{three}{cook:=three}] stirred for {=number} minutes, feeling {=feeling}.",
                "[{one}{cook:=one}|{two}{cook:=two}|{three}{cook:=three}] stirred it {=moment}, [singing|yawning].",
            ),
            templates(
                "When it was done they gave [a bowl|half|a spoonful|all] to {guest=sender} {=moment}.",
                "{Guest=sender} [ate|tasted|smelled|spilled] it first and [asked for more|turned red|said nothing|sang].",
                "They ate it with {guest=sender}, who was {=feeling} and {=feeling}.",
            ),
        ),
    ),
    questions=(
        ask("one", ("Who brought {x}?", "Who had {x}?"), "{one} brought {x}.", "bringer"),
        ask("y", ("What did {two} bring?", "What did {two} add to the soup?"), "{two} brought {y}.", "brought"),
        ask("z", ("What did {three} bring?", "What did {three} add to the soup?"), "{three} brought {z}.", "added"),
        ask("cook", ("Who stirred the soup?", "Who stirred?"), "{cook} stirred the soup."),
        ask("guest", ("Who shared the soup with them?", "Who was the guest?"), "{Guest} was the guest."),
    ),
)

PLOTS = (RACED, RESCUED, GUESSED, COOKED)
