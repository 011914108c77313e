"""Word lists of the built-in generated tasks and of the documents the built-in model was trained on."""

POSITIVE = tuple(
    "wonderful delightful charming brilliant lovely moving clever superb graceful vivid warm fresh honest "
    "thrilling tender funny elegant bright gentle rich joyful splendid excellent stunning touching radiant witty "
    "inspired smooth magical remarkable pleasing sincere lively beautiful enchanting sharp rewarding satisfying "
    "fantastic".split()
)
NEGATIVE = tuple(
    "awful boring dull clumsy tedious ugly hollow bland shallow messy weak stale annoying lifeless painful silly "
    "dreary empty cheap forced grim horrible dreadful lazy confusing noisy flat cold bitter rotten pointless "
    "tiresome vulgar sloppy gloomy broken miserable nasty unbearable disappointing".split()
)
NEUTRAL = tuple(
    "ordinary average usual common typical plain regular standard normal familiar moderate simple passable "
    "middling conventional unremarkable".split()
)
STRONG = ("utterly", "truly", "absolutely", "deeply", "completely", "extremely")
MILD = ("slightly", "rather", "somewhat", "fairly", "mildly", "partly")

REVIEWED = {
    "film": tuple(
        "film movie plot story acting script ending music cast scene camera dialogue comedy drama hero director "
        "picture sequel romance thriller".split()
    ),
    "stay": tuple("room hotel bed view lobby service garden pool staff breakfast bath street".split()),
    "meal": tuple("soup bread sauce dinner cake steak salad coffee dessert waiter table kitchen".split()),
    "book": tuple("novel chapter poem book essay style prose page author cover tale verse".split()),
}

# For each topic: subjects, verbs, objects.
TOPICS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    topic: tuple(tuple(part.split()) for part in parts)  # type: ignore[misc]
    for topic, parts in {
        "world": (
            "president minister parliament rebels troops diplomats voters army embassy government",
            "signed rejected attacked debated defended condemned announced",
            "treaty border election peace law ceasefire sanctions protest summit province",
        ),
        "sports": (
            "striker coach team goalkeeper runner champion swimmer pitcher captain athletes",
            "won lost played trained scored celebrated entered",
            "match final tournament race league medal season trophy game penalty",
        ),
        "business": (
            "company investors bank retailer shareholders economist airline factory broker executives",
            "bought sold raised reported cut financed traded",
            "shares profit prices market stock loan merger debt revenue costs",
        ),
        "technology": (
            "engineers software programmers laptop robot startup server hackers chip developers",
            "updated installed designed coded tested launched encrypted",
            "browser network website app computer phone satellite database sensor internet",
        ),
        "food": (
            "cook baker chef grandmother waitress butcher guests",
            "baked tasted served boiled mixed fried",
            "pie noodles cheese stew rice pancakes garlic honey",
        ),
        "weather": (
            "storm wind clouds rain frost thunder fog",
            "covered cooled soaked darkened crossed hit",
            "valley coast hills sky islands harbour fields desert",
        ),
        "music": (
            "singer violinist choir drummer orchestra pianist band",
            "recorded sang rehearsed performed composed tuned",
            "song melody album concert symphony chorus guitar opera",
        ),
        "health": (
            "doctor nurse patient surgeon dentist clinic pharmacist",
            "treated cured examined healed prescribed diagnosed",
            "fever wound vaccine disease tooth virus injury cough",
        ),
        "nature": (
            "wolf eagle bear fox whale deer beetle",
            "hunted chased followed watched guarded found",
            "forest nest river prey cave seeds pond leaves",
        ),
        "travel": (
            "tourist pilot guide sailor traveller driver hiker",
            "visited crossed left reached toured explored",
            "station temple airport castle bridge beach museum island",
        ),
        "school": (
            "teacher student professor pupil librarian class principal",
            "studied taught read explained solved learned",
            "lesson exam homework essay grammar chemistry history algebra",
        ),
        "farming": (
            "farmer shepherd gardener tractor villagers harvester rancher",
            "planted watered harvested fed ploughed sowed",
            "wheat barn sheep orchard corn cattle soil potatoes",
        ),
    }.items()
}

NAMES = tuple(
    "Anna Ben Carla David Emma Felix Grace Henry Irene Jack Karen Leo Maria Nina Oscar Paula Ralph Sara Tom "
    "Vera".split()
)
PEOPLE = tuple("detective soldier widow orphan thief princess lawyer nurse painter smuggler clerk captain".split())
PLACES = tuple("Paris Boston London Cairo Tokyo Madrid Vienna Lima Oslo Dublin Prague Athens".split())
EVENTS = tuple("murder wedding robbery letter secret journey treasure trial accident inheritance map war".split())
DEEDS = tuple("meets marries betrays rescues follows hires escapes finds".split())
AUDIENCE = tuple("viewer audience critic fan parent reader child public".split())

ANIMALS = tuple("dog cat horse goat parrot rabbit turtle hamster duck pony".split())
VEHICLES = tuple("bicycle truck boat scooter van sledge canoe tram".split())
COLOURS = tuple("red blue green yellow black white brown purple".split())
SPOTS = tuple("garden kitchen yard cellar attic park meadow garage".split())
GOODS = tuple("lamp chair clock basket mirror carpet kettle vase drum pillow".split())
SHAPES = tuple("round square tiny huge narrow heavy thin tall".split())
TIMES = ("on Monday", "on Friday", "last week", "this morning", "yesterday", "in March", "in winter", "at night")

# Words that serve as labels without any meaning for the text they label.
LABELS = tuple(
    "Alpha Beta Gamma Delta Omega Sigma Kappa Zeta One Two Three Four Five Six North South East West Spring "
    "Summer Autumn Winter Apple Pear Plum Cherry Lemon Grape Iron Gold Silver Copper Zinc Lead Left Right Up Down "
    "In Out Oak Elm Pine Birch Maple Cedar Stone River Cloud Flame Lion Tiger Hawk Crane Otter Circle Triangle "
    "Cube Line Dot Ring foo bar baz qux wug dax blick fep toma kiki bouba zorp mip lorn vack plim rop gub snee "
    "tark A B C D E F first second third fourth inner outer open closed fast slow major minor hard soft wet dry "
    "day dusk dawn noon salt sugar pepper Mars Venus Saturn Jupiter Earth Moon Sun Star True False Neither World "
    "Sports Business Technology Positive Negative objective subjective terrible bad neutral good great".split()
)

# Labels that mean what they label, by family of concepts; each row is ordered like the family's classes.
NATURAL_LABELS: dict[str, tuple[tuple[str, ...], ...]] = {
    "sentiment": (
        ("sad", "happy"),
        ("poor", "fine"),
        ("hate", "love"),
        ("no", "yes"),
        ("worst", "best"),
        ("Boo", "Hooray"),
    ),
    "rating": (
        ("worst", "poor", "average", "fine", "best"),
        ("hate", "dislike", "unsure", "like", "love"),
        ("zero", "low", "middle", "high", "top"),
    ),
    "tone": (("fact", "opinion"), ("report", "view"), ("plot", "praise"), ("what", "why")),
    "inference": (("yes", "no", "maybe"), ("right", "wrong", "unknown"), ("follows", "conflicts", "unrelated")),
}

# Common words that only the tokenizer's training text uses, so that other English takes few tokens.
COMMON = tuple(
    "the of and to in is that it was for on are as with his they at be this from have or by one had not but what "
    "all were when we there can an your which their said if do will each about how up out them then she many some "
    "so these would other into has more her two like him see time could no make than first been its who now "
    "people my made over did down only way find use may water long little very after words called just where most "
    "know get through back much before go good new write our used me man too any day same right look think also "
    "around another came come work three must because does part even place well such here take why things help "
    "put years different away again off went old number great tell men say small every found still between name "
    "should home big give air line set own under last never us left end along while might next sound below saw "
    "something thought both few those always looked show large often together asked house don't world going want "
    "school important until form food keep children feet land side without boy once animals life enough took "
    "sometimes four head above kind began almost live page got earth need far hand high year mother light country "
    "father let night following picture being study second eyes soon times story boys since white days ever paper "
    "hard near sentence better best across during today others however sure means knew it's try told young miles "
    "sun ways thing whole hear example heard several change answer room sea against top turned learn point city "
    "play toward five using himself usually money seen didn't car morning given group review sentiment label "
    "input type news article answer question sentence category film movie story people world company government "
    "million year percent market president officials state united states new york company inc corp said monday "
    "tuesday wednesday thursday friday saturday sunday reuters international national public american character "
    "characters performance performances funny comedy drama romantic action audience director screen feels makes "
    "seems something nothing never really quite doesn't isn't can't won't you're that's there's work human love "
    "heart mind fun bad best better worst less least enough almost entertaining interesting original predictable "
    "effort cast acting classify articles categories world sports business technology true false neither positive "
    "negative objective subjective terrible neutral".split()
)
