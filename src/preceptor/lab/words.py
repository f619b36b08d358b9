"""The lab's closed lexicon. The order matters: seeds draw from it."""

NOUNS = """
apple bag ball bean bell bird boat book bread bus cake camp card cat clock coat coin
corn cup desk dog door drum duck fan farm fish flag fork frog gate goat hat hen hill
horse jam key king kite lake lamp leaf lion map milk moon mouse nest nut oven owl pan
park pear pen pig plum pond queen rain ring road rock rose salt seed ship shoe sock song
spoon star stone sun tent tiger town toy train tree van vase wheel wind wolf yard
""".split()
COLOURS = """
red blue green black white pink brown grey
""".split()
HOLDERS = """
box bag jar drawer basket cup
""".split()
ADJECTIVES = """
amber birch cedar coral fern hazel ivory jade linen maple pearl slate
""".split()
WARES = """
lamp chair kettle rug mirror teapot blanket clock stool vase
""".split()
CITIES = """
Arden Belmo Corvin Dunley Esker Fallow
""".split()
