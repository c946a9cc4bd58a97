"""The words of the world: names, what can be true of a person, and what happens to turn up in a story.

A comma separates words, line breaks mean nothing. No name here is meant to be anybody's. First names of people and names
in stories are kept apart, so that a story never says anything about a person. No list holds a word twice.
"""


def words(text: str) -> tuple[str, ...]:
    """The words of a comma-separated text."""
    return tuple(" ".join(word.split()) for word in text.split(","))


WOMEN = words("""
    Mira, Alda, Brisa, Corrin, Delphie, Elowen, Fenna, Greta, Hesper, Ilse, Jorun, Kesta, Liska, Maren, Nessa, Orla,
    Petra, Quilla, Runa, Signe, Tova, Una, Vesna, Wilda, Ysolde, Zella, Anwen, Birgit, Calla, Dagny, Edda, Freya
""")

MEN = words("""
    Aldo, Borin, Cedric, Dorian, Edric, Fergus, Gorran, Halvard, Ivo, Joren, Kellan, Lorcan, Magnus, Nils, Osric,
    Pavel, Quentin, Rolf, Soren, Tobin, Ulric, Viggo, Wendel, Yorick, Zeno, Anselm, Bertil, Conrad, Darrow, Emeric,
    Florin, Gideon
""")

SURNAMES = words("""
    Tollen, Ambrey, Ashgrove, Barlow, Bellwether, Birchall, Brackenby, Brindle, Caraway, Cobbold, Coppard, Crane,
    Dewberry, Drummond, Eldridge, Farrow, Fennimore, Finch, Fleetwood, Garrick, Goodwater, Hadley, Hartwell, Hawthorn,
    Hollowell, Hopkirk, Inkpen, Jessop, Kettle, Larkin, Linden, Lovelock, Mallow, Marchbank, Merriweather, Millrace,
    Nettlefold, Nightingale, Oakhurst, Osgood, Pepperdine, Pickering, Plumtree, Quince, Ravenhill, Redfern,
    Saltonstall, Sedgewick, Silverlock, Sparrow, Starling, Swann, Teasel, Thackeray, Underwood, Vane, Wainwright,
    Whitlock, Winterbourne, Yarrow, Appleyard, Bannerman, Bellamy, Bickerstaff, Blackwood, Bramley, Cartwheel,
    Chaffinch, Cotterill, Dabney, Dunnock, Elderflower, Everhart, Fairweather, Fernsby, Foxglove, Gooseberry, Grimble,
    Halloway, Heatherington, Huckaby, Ironmonger, Juniper, Kestrel, Lambourne, Lindqvist, Marrowby, Meadow, Netherby,
    Orchard, Peabody, Primrose, Rainbird, Sandiford, Snowden, Tattersall, Tidewell, Umber, Weatherby, Woodruff
""")

GIRLS = words("""
    Wren, Pippa, Tilly, Odette, Fern, Hazel, Nell, Poppy, Juno, Linnet, Sorrel, Bryony, Clemmie, Dot, Tamsin, Ida,
    Maud, Esme, Posy, Ottilie, Romy, Bee, Winnie, Cleo, Hattie, Lark, Minna, Flora, Junia, Rosa, Etta, Saffie, Dilys,
    Marnie, Nora, Peggy, Thea, Vita, Willa, Xanthe
""")

BOYS = words("""
    Bram, Otto, Rufus, Jasper, Felix, Toby, Hugo, Barnaby, Milo, Ned, Oscar, Linus, Caspar, Gus, Silas, Theo, Piet,
    Angus, Monty, Ravi, Emil, Lucian, Rory, Basil, Jonty, Kit, Leo, Mungo, Rafe, Sami, Ulf, Zack, Alfie, Digby, Errol,
    Gil, Jem, Noah, Perry, Rollo
""")

_TENS = words("thirty, forty, fifty, sixty, seventy")
_ONES = words("one, two, three, four, five, six, seven, eight, nine")

# What can be true of a person; the keys are the fields of `Person`.
FACTS = {
    "town": words("""
        Harrowby, Tinmere, Oldwick, Ferncastle, Copperhill, Dunmoor, Larkfield, Mosswater, Pennygate, Quillhaven,
        Rookwood, Silverford, Thistledown, Umberly, Vinehall, Brindlewick, Candlewick, Eastering, Foxhollow, Gullhaven
    """),
    "trade": words("""
        baker, beekeeper, bell founder, boat builder, bookbinder, candle maker, carpenter, clock mender, cobbler,
        gardener, glass blower, innkeeper, lamplighter, locksmith, map maker, miller, piano tuner, potter,
        schoolteacher, shepherd, stonemason, tailor, weaver, ferry pilot
    """),
    "age": tuple(ten if not one else f"{ten}-{one}" for ten in _TENS for one in ("", *_ONES)),
    "food": words("""
        plum dumplings, mushroom soup, honey cake, pickled herring, barley bread, apple pie, roast chestnuts, cheese
        pancakes, leek pie, lentil stew, cherry jam, ginger biscuits, potato salad, smoked trout, onion tart, rice
        pudding, poppy-seed rolls, pea soup, baked pears, walnut bread, blackberry crumble, corn fritters, buttered
        noodles, lemon curd
    """),
    "instrument": words("""
        fiddle, flute, accordion, cello, banjo, harp, trumpet, drum, clarinet, mandolin, harmonica, zither, lute,
        oboe, tuba, concertina, dulcimer, viola, tin whistle, organ
    """),
    "pet": words("""
        tortoise, hedgehog, parrot, greyhound, tabby cat, white rabbit, tame crow, goat, donkey, sheepdog, goldfish,
        ferret, duck, canary, squirrel, barn owl
    """),
    "pet_name": words("""
        Biscuit, Pepper, Captain, Duchess, Button, Thimble, Marble, Nutmeg, Bramble, Clover, Domino, Figaro, Ginger,
        Hopscotch, Juniper, Muffin, Noodle, Pickle, Professor, Rascal, Sprocket, Tuppence, Waffles, Ziggy
    """),
}

# What is drawn afresh in each document, and true in that document only.
LISTS = {
    "name": tuple(name for pair in zip(GIRLS, BOYS, strict=True) for name in pair),
    "quality": words("""
        kind, patient, cheerful, curious, stubborn, gentle, quiet, generous, careful, thoughtful, tidy, merry, modest,
        witty, dreamy, brave, loyal, clever, polite, sensible, lively, humble, graceful, warm, steady, playful,
        sincere, hopeful, wise, lucky, frank, calm, bold, shy, jolly, proud, noble, earnest, sunny, serious, tender,
        nimble, bright, friendly, cunning, jaunty, solemn, gallant, peaceful, sturdy, watchful, dignified, spirited,
        mild, trusting, grateful, nosy, punctual, restless, dapper, musical, practical, unhurried, inventive,
        agreeable, bashful, candid, charming, chatty, daring, decent, diligent, droll, eager, faithful, fearless,
        forgiving, genial, gracious, hardy, hearty, jovial, keen, likeable, mellow, methodical, neighbourly, obliging,
        outspoken, plucky, prudent, quirky, resolute, tactful, upright, zestful
    """),
    "feature": words("""
        smile, laugh, voice, handshake, face, manner, whistle, nod, wink, walk, stare, bow, heart, hand, eye, mind,
        chin, nose, moustache, sneeze
    """),
    "house": words("""
        narrow, tall, crooked, tidy, tiny, sunny, draughty, cosy, whitewashed, thatched, painted, lopsided, stone,
        brick, timber, handsome, modest, rambling, cluttered, bright, quiet, neat, weathered, low, round, square,
        yellow, green, white, shuttered, creaking, mossy, windy, shady, old, borrowed, half-finished, well-scrubbed,
        slanting, stately
    """),
    "spot": words("""
        by the river, behind the mill, under the old lime tree, near the market, at the edge of the wood, beside the
        duck pond, across from the bakery, above the harbour, at the top of the hill, next to the school, below the
        castle, beyond the orchard, at the foot of the bell tower, on the north road, along the canal, close to the
        station, between two chestnut trees, opposite the library, around the corner from the inn, on a street full of
        cats, where the road bends, near the old bridge, just past the windmill, over the hat shop, behind a tall
        hedge, by the fountain, at the end of the lane, among apple trees, beside the forge, near the quarry, on the
        sunny side of the square, above the stables, within sight of the sea, under the big clock, down by the ferry,
        a stone's throw from the church
    """),
    "time": words("""
        on Sunday afternoons, after supper, before breakfast, on rainy days, in the evening, at dawn, every Thursday,
        when the wind is low, on market days, at the end of the week, after the harvest, on long winter nights,
        between two cups of tea, whenever friends visit, on the first of the month, while the kettle boils, at
        midsummer, once the shops are shut, when nobody is looking, at lunchtime, on holidays, in early spring, late
        at night, as soon as the sun is out, after church, by moonlight, every other Friday, at low tide, in the first
        snow, all summer long, when the bells ring, in the small hours, just before the rain, on foggy mornings, at
        noon, in autumn
    """),
    "number": words(
        "two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen, fifteen"
    ),
    "month": words("January, February, March, April, May, June, July, August, September, October, November, December"),
    "habit": words("""
        climbs trees, runs for the ferry, whistles in the street, reads by candlelight, swims in the river, laughs at
        old jokes, collects stamps, writes letters by hand, sings in the bath, sleeps with the window open, feeds the
        sparrows, walks barefoot in the grass, argues with the radio, believes in luck, counts the stars, skips
        stones, keeps a diary, wears odd socks, takes the long way home, talks to the plants, forgets umbrellas,
        dances in the kitchen, naps after lunch, builds snowmen, mends toys, waves at trains, borrows ladders, cheats
        at cards, rescues snails, paints gates, saves string, hums at work, gives away buttons, knows every dog by
        name, loses gloves, eats cake first, tells long stories, flies kites, rings the bell twice, bows to cats
    """),
    "manner": words("""
        rather loudly, with closed eyes, a little out of tune, very softly, from memory, for the neighbours, with cold
        fingers, better each year, for anyone who listens, standing on one leg, with great feeling, slowly and sadly,
        mostly for dancing, without a single mistake, to an audience of sparrows, far too fast, as if nobody could
        hear, to the delight of the cats, with a stiff back, like a lullaby, with one eye on the clock, for a biscuit
        or two, at weddings only, to chase away the rain
    """),
    "antic": words("""
        sleeps in the woodbox, steals socks, is afraid of thunder, follows the postman, hates baths, eats only crusts,
        guards the front door, hides under the stairs, is older than it looks, likes to be read to, snores, can open
        every cupboard, is fond of music, comes when it is called, never comes when it is called, rides along in the
        wheelbarrow, has a cushion of its own, wakes the whole street, dislikes hats, rules the house, is good with
        children, once fell into the well, gets a birthday cake each year, sits in the window all day, chases its own
        shadow, has never been late for dinner, knows the way to the bakery, collects spoons, listens at doors, is
        bigger every week, thinks it is a dog, fears nothing but geese, smells of lavender, won a prize at the fair,
        dreams aloud, prefers the best chair
    """),
    "saying": words("""
        good bread needs time, every cloud has somewhere to be, a short road is seldom the best one, soup mends most
        things, a borrowed book should come home, cats know more than they tell, nobody was ever late for spring, a
        song weighs nothing, there is always room for one more chair, rain is only shy snow, a door is happier open,
        two quiet people make good company, mud washes off, even a small lamp is a lamp, the moon is nobody's fool,
        what is mended twice lasts longest, a full pocket makes a slow walker, the tide waits for no hat, a good
        question is half a supper, old boots know the way, bees never hurry, a kind word keeps in any weather, one
        candle can light another, you cannot argue with a goose, a letter is a visit, tomorrow has clean hands, every
        key fits something, an honest mistake makes a good story, trees grow while we sleep, tea first and then the
        rest, a tidy shelf hides a busy mind, nothing is lost that somebody finds
    """),
    "weather": words("""
        windy, rainy, foggy, frosty, snowy, sunny, stormy, misty, cloudy, warm, chilly, bright, grey, mild, dewy,
        breezy, hot, icy, golden, drizzly, still, dark, damp, cloudless
    """),
    "daypart": words("morning, afternoon, evening, Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
    "look": words("""
        little, old, shiny, strange, pretty, dusty, tiny, battered, curious, lovely, plain, odd, fine, crooked, red,
        blue, green, yellow, striped, spotted, handsome, heavy, famous, secondhand, black, white, purple, orange,
        pink, brown, golden, wooden, painted, borrowed, rusty, muddy, huge, bent, clean, sticky, light, splendid,
        foreign, cheap, noisy, ancient, scratched, polished, dented, faded, folded, fragrant, gilded, hollow, knitted,
        leaky, lopsided, patched, perfect, ragged, silver, squeaky, warm, wet
    """),
    "thing": words("""
        key, button, whistle, marble, kite, lantern, teapot, mirror, compass, ribbon, spoon, music box, umbrella, hat,
        scarf, basket, puppet, feather, coin, bell, boot, clock, map, drum, ladder, blanket, jug, violin, pebble,
        candle, brush, balloon, rope, bucket, book, flute, ring, mug, shell, doll, hammer, flag, saddle, bottle,
        glove, cushion, pencil, mask, trumpet, lamp, wheel, box, broom, comb, net, pipe, crown, purse, fan, globe,
        thimble, chair, letter, stone, saddlebag, pillow, telescope, whisk, sieve, tambourine, sock, belt, brooch,
        cup, plate, hourglass, magnet, needle, oar, padlock, quilt, rattle, sledge, tassel, vase, wig, yoyo, anchor,
        medal, ticket, shovel, string, pan, cane, barrel, figurine
    """),
    "place": words("""
        the mill, the old bridge, the market, the orchard, the harbour, the bakery, the library, the duck pond, the
        windmill, the bell tower, the station, the stables, the forge, the well, the castle gate, the church, the
        school, the inn, the lighthouse, the ferry, the hat shop, the quarry, the beehives, the big oak, the town
        hall, the fountain, the barn, the post office, the cherry tree, the theatre, the river, the crossroads, the
        vineyard, the boathouse, the rose garden, the ruins, the toll house, the museum, the bandstand, the fish stall
    """),
    "moment": words("""
        after supper, the next day, before breakfast, at noon, that same evening, an hour later, while the kettle
        boiled, when the rain stopped, at dawn, by candlelight, at teatime, without a word, very quietly, one
        Thursday, in the dark, when nobody was looking, after a long nap, before the bell rang, under a full moon, in
        a great hurry, two days later, with a deep sigh, on tiptoe, as the sun set, with a loud laugh, at midnight,
        without any help, after the storm, on the stroke of four, with both hands, to a slow count of ten, between two
        songs
    """),
    "hideout": words("""
        under the bed, in the teapot, behind the clock, in a boot, under the stairs, in the woodbox, up the chimney,
        behind the curtain, in the flour bin, under a flowerpot, in the piano, on top of the wardrobe, in the hen
        house, inside the pumpkin, beneath the doormat, in a coat pocket, behind the mirror, under the wheelbarrow, in
        the sock drawer, between two books, in the bathtub, under the cushion, in the attic, at the bottom of the
        basket, in the coal cellar, behind the stove, in a bird's nest, under the rug, in the cake tin, inside the
        cello, on the window sill, in the rain barrel, under a loose board, in the kennel, behind the portrait, in a
        hatbox
    """),
    "treat": words("""
        a slice of cake, a bag of cherries, a jar of honey, a warm bun, a cup of cocoa, an apple, a bowl of soup, a
        pear tart, a handful of nuts, a piece of cheese, a ginger biscuit, a hot potato, a glass of milk, a plum, a
        toffee, a jam sandwich, a pot of tea, a pancake, a bunch of grapes, a boiled egg, a lemon drop, a muffin, a
        waffle, a stick of rhubarb, a cream puff, a peach, a pickle, a bar of chocolate, a meat pie, a carrot, a date,
        a doughnut
    """),
    "ingredient": words("""
        carrots, leeks, potatoes, onions, mushrooms, lentils, barley, parsley, peas, turnips, beans, garlic, salt,
        pepper, butter, cabbage, thyme, noodles, dumplings, tomatoes, sausages, cream, celery, lemons, spinach,
        beetroot, rice, bacon, pumpkin, ginger, fennel, sage, chestnuts, radishes, olives, nettles, almonds, basil,
        chives, cloves, cucumbers, dill, honey, milk, mustard, oats, rosemary, sprouts
    """),
    "feeling": words("""
        glad, proud, tired, hungry, lucky, content, sleepy, hopeful, merry, brave, thankful, clever, cold, happy,
        giddy, calm, thirsty, grand, cosy, curious, shy, puzzled, warm, wise
    """),
    "animal": words("""
        fox, lamb, kitten, heron, hedgehog, goose, badger, rabbit, pony, duckling, puppy, squirrel, hare, owl, calf,
        mole, robin, piglet, magpie, toad, otter, swan, goat, donkey, sparrow, beaver, crane, weasel, crow, foal,
        seal, turtle
    """),
    "sender": words("""
        Grandmother, Grandfather, Aunt Posy, Uncle Fitch, the miller, the baker, the postman, the doctor, the captain,
        the teacher, the cook, old Mrs Pym, the mayor, Cousin Bell, the tailor, the farmer, Mr Quill, the fisherman,
        the organist, the widow Marsh
    """),
    "excuse": words("""
        slipped in the mud, lost a shoe, stopped to pet a dog, took a wrong turn, paused to tie a lace, ran into a
        goose, fell over a bucket, waited for a cart, got the hiccups, stopped to admire the view, sneezed eleven
        times, tripped over a cat, met an old friend, was stung by a bee, sat down to rest, forgot the way, stepped in
        a puddle, chased a butterfly, lost a hat to the wind, got a stone in one boot, tore a sleeve, stopped for a
        drink, was called back for a scarf, fell asleep under a tree
    """),
}
